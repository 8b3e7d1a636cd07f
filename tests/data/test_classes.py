import pytest

from gear.data import DataError
from gear.data.classes import class_list, class_names, imagenet


def test_folders_are_their_own_classes():
    assert class_list("folders", ["cat", "dog"]) == ("cat", "dog")
    assert class_list("folders", []) == ()


def test_imagenet_keeps_its_order_where_folders_are_missing():
    classes = class_list("imagenet", ["n01443537", "n15075141"])
    assert len(set(classes)) == 1000
    assert classes[:2] == ("n01440764", "n01443537")
    assert classes.index("n15075141") == 999
    assert list(classes) == sorted(classes)


def test_a_file_of_names(tmp_path):
    (tmp_path / "list.txt").write_text("zebra\n ant \ncat\n\n")
    assert class_list(str(tmp_path / "list.txt"), ["cat", "ant"]) == ("zebra", "ant", "cat")


@pytest.mark.parametrize(
    ("text", "said"), [("a\nb\na\n", "'a' breaks that"), ("a\n\nb", "'an empty line' breaks that")]
)
def test_a_file_that_would_shift_labels(tmp_path, text, said):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(DataError, match=said):
        class_list(str(tmp_path / "list.txt"), ["a"])


def test_folders_that_are_not_in_the_list_are_named():
    with pytest.raises(
        DataError, match=r'"imagenet", whose 1000 classes do not include 2 of the 3 folders: cat, dog\.'
    ):
        class_list("imagenet", ["cat", "dog", "n01440764"])
    with pytest.raises(DataError, match=r"6 of the 6 folders: a, b, c, d, e, \.\.\."):
        class_list("imagenet", list("fedcba"))


def test_a_list_needs_class_folders():
    with pytest.raises(DataError, match="lie in no class folders"):
        class_list("imagenet", [])


def test_no_such_file(tmp_path):
    with pytest.raises(DataError, match=r'"folders", "imagenet" or a text file .*absent.*No such file'):
        class_list(str(tmp_path / "absent"), ["a"])
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not UTF-8"):
        class_list(str(tmp_path / "binary"), ["a"])


def test_names_for_display():
    assert class_names(["cat", "dog"]) == ("cat", "dog")
    assert class_names(["n01440764", "n01443537", "n00000000", "mine"]) == ("tench", "goldfish", "n00000000", "mine")
    names = class_names(imagenet())
    assert len(set(names)) == 1000  # two are cranes and two are maillots
    assert names[134] == "crane (n02012849)"
