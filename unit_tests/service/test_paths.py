"""Which paths of requests lead to a file."""

import os

import pytest

from cellbundle.errors import ConfigError
from cellbundle.service.paths import Located, OutsideError, PathMap, Root, locate


@pytest.fixture
def tree(tmp_path):
    """A root with images, and things outside that must stay there."""
    root, outside = tmp_path / "root", tmp_path / "root-outside"
    for folder in (root / "sub", outside / "deep"):
        folder.mkdir(parents=True)
    for file in (root / "a.png", root / "sub" / "B.TIF", root / "a%2e.png", outside / "secret.png"):
        file.write_bytes(b"image")
    (root / "notes.txt").write_text("text")
    (root / "folder.png").mkdir()
    (root / "to_a.png").symlink_to(root / "a.png")
    (root / "to_sub").symlink_to("sub")
    (root / "out.png").symlink_to(outside / "secret.png")
    (root / "out_dir").symlink_to(outside)
    (root / "out_txt.png").symlink_to(root / "notes.txt")
    (root / "dangling.png").symlink_to(root / "nothing.png")
    (root / "loop.png").symlink_to(root / "loop.png")
    os.mkfifo(root / "fifo.png")
    (root / "c.png").write_bytes(b"image")
    (root / "c_mask.png").symlink_to(outside / "written.png")
    (root / "d.png").write_bytes(b"image")
    (root / "d_mask.png").mkdir()
    (outside / "link.png").symlink_to(root / "a.png")
    return root


def test_images_below_a_root(tree):
    roots = (Root.of(tree),)
    assert locate(f"{tree}/a.png", roots, ()) == Located(tree / "a.png", tree / "a_mask.png", f"{tree}/a_mask.png")
    assert locate(f"{tree}/sub/B.TIF", roots, ()).mask == tree / "sub" / "B_mask.png"
    assert locate(f"{tree}/a%2e.png", roots, ()).image == tree / "a%2e.png"  # a name like others


def test_links_that_stay_below_a_root_are_followed(tree):
    roots = (Root.of(tree),)
    found = locate(f"{tree}/to_a.png", roots, ())
    assert (found.image, found.mask) == (tree / "a.png", tree / "to_a_mask.png")
    found = locate(f"{tree}/to_sub/B.TIF", roots, ())
    assert (found.mask, found.answer) == (tree / "sub" / "B_mask.png", f"{tree}/to_sub/B_mask.png")


def test_a_root_may_be_a_link_itself(tree, tmp_path):
    (tmp_path / "link").symlink_to(tree)
    roots = (Root.of(tmp_path / "link"),)
    assert locate(f"{tmp_path}/link/a.png", roots, ()).mask == tree / "a_mask.png"
    assert locate(f"{tree}/a.png", roots, ()).mask == tree / "a_mask.png"


REFUSED = [
    "{root}/missing.png",
    "{root}/../root/a.png",
    "{root}/sub/../a.png",
    "{root}/../root-outside/secret.png",
    "{outside}/secret.png",
    "{outside}/link.png",
    "{outside}/nothing.png",
    "/etc/passwd",
    "a.png",
    "sub/B.TIF",
    "../root-outside/secret.png",
    "",
    "/",
    ".",
    "{root}",
    "{root}/",
    "{root}/notes.txt",
    "{root}/folder.png",
    "{root}/fifo.png",
    "{root}/out.png",
    "{root}/out_dir/secret.png",
    "{root}/out_txt.png",
    "{root}/dangling.png",
    "{root}/loop.png",
    "{root}/c.png",
    "{root}/d.png",
    "{root}/A.PNG",
    "{ROOT}/a.png",
    "{root}/a.png\0",
    "{root}/a.png\0.png",
    "\0",
    "{root}/%61.png",
    "{root}/%2e%2e/root-outside/secret.png",
    "{root}/..%2froot-outside/secret.png",
    "{root}/..\\root-outside\\secret.png",
    "file://{root}/a.png",
    "~/a.png",
    "$HOME/a.png",
    "{root}/a.png ",
    "{root}/\ud800.png",
    "{root}/" + "x" * 300 + ".png",
    "{root}" + "/x" * 5000 + "/a.png",
    "C:\\a.png",
    "\\\\server\\share\\a.png",
    "//server/share/a.png",
    "/proc/self/cwd/a.png",
]


@pytest.mark.parametrize("path", REFUSED)
def test_all_else_is_refused(tree, path, monkeypatch):
    monkeypatch.chdir(tree)
    text = path.format(root=tree, outside=tree.parent / "root-outside", ROOT=str(tree).upper())
    with pytest.raises(OutsideError):
        locate(text, (Root.of(tree),), ())


def test_what_is_not_written_below_a_root_is_never_looked_up(tree, monkeypatch):
    roots = (Root.of(tree),)
    monkeypatch.setattr("pathlib.Path.resolve", lambda *_, **__: pytest.fail("looked up"))
    with pytest.raises(OutsideError):
        locate("/etc/passwd", roots, ())


def test_paths_of_the_caller_are_translated_and_the_answer_is_translated_back(tree):
    roots = (Root.of(tree),)
    maps = (PathMap.of(f"/host/data={tree}"), PathMap.of(f"/host={tree.parent}"), PathMap.of(f"C:\\Data={tree}"))
    found = locate("/host/data/sub/B.TIF", roots, maps)
    assert (found.image, found.answer) == (tree / "sub" / "B.TIF", "/host/data/sub/B_mask.png")
    found = locate("c:\\data\\sub\\B.TIF", roots, maps)
    assert (found.image, found.answer) == (tree / "sub" / "B.TIF", "c:\\data\\sub\\B_mask.png")


@pytest.mark.parametrize(
    "path", ["/host/database/a.png", "/host/data/../data/a.png", "/host/data/out.png", "C:\\Data\\..\\a.png"]
)
def test_translated_paths_must_stay_below_a_root_too(tree, path):
    maps = (PathMap.of(f"/host/data={tree}"), PathMap.of(f"C:\\Data={tree}"))
    with pytest.raises(OutsideError):
        locate(path, (Root.of(tree),), maps)


@pytest.mark.parametrize("text", ["/host", "=/here", "/host=", "host=/here", "/host=here", ""])
def test_a_map_needs_two_absolute_paths(text):
    with pytest.raises(ConfigError, match=r"--path-map.*HOST=CONTAINER"):
        PathMap.of(text)


def test_a_root_must_be_a_folder(tree):
    with pytest.raises(ConfigError, match=r"a\.png.*--root"):
        Root.of(tree / "a.png")
