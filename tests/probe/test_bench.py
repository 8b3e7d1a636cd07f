"""Both sides of bench.probes agree, at small sizes."""

from bench import probes


def test_bench(monkeypatch):
    for name, size in {"IMAGES": 50, "SIDE": 8, "CHANNELS": 24, "TARGET": 12, "PATCHES": 300, "BATCH": 16}.items():
        monkeypatch.setattr(probes, name, size)
    rows = probes.run()
    assert [row.unit for row in rows] == ["s", "s"]
    assert all(row.ours > 0 for row in rows)
