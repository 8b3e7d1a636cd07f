"""The functions behind the commands of `gear` that measure and explain; `gear.cli` registers them."""
