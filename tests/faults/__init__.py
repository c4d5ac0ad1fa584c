"""A package, so that the machine of these tests is taken down with the last of them, and not with the last test of all."""
