"""What a sandbox shows of the machine's files, in real mount namespaces: what is hidden, shown again, and read-only."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from raygrid.node.sandbox import view
from raygrid.node.sandbox.threads import RestrictedThreads
from raygrid.node.sandbox.view import SHARED_MEMORY, View
from raygrid.system import namespaces
from tests.support.sandboxed import NEEDS_MOUNTS, on_disk

T = TypeVar("T")
Seen = Callable[[View, Callable[[], T]], T]
pytestmark = NEEDS_MOUNTS


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory on disk; what changes in views of it does not change here."""
    with on_disk() as made:
        for name in ("grid/nodes/own/job", "grid/nodes/other", "home"):
            (made / name).mkdir(parents=True)
        for name in ("grid/token", "grid/nodes/other/input", "grid/nodes/own/job/input", "home/keys", "home/book"):
            (made / name).write_text(name)
        before = mounts()
        yield made
        assert mounts() == before


def mounts() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


def seen(wanted: View, look: Callable[[], T], around: Callable[[], None] = lambda: None) -> T:
    """What work in a thread with this view returns; `around` makes further mounts before."""

    def prepare() -> None:
        namespaces.unshare(namespaces.NEW_MOUNTS)
        namespaces.keep_mounts_inside()
        around()
        descriptor = view.build(wanted)
        if descriptor >= 0:
            os.close(descriptor)

    box = RestrictedThreads(prepare, lambda: None)
    try:
        return box.run(look)
    finally:
        box.close()


def refusal(change: Callable[[], object]) -> str:
    """The name of the error with which a change is refused; empty if it succeeds."""
    try:
        change()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return ""


def plain(hidden: list[Path], shown: list[Path] | None = None, read_only: list[Path] | None = None) -> View:
    lists = [[str(path) for path in paths or ()] for paths in (hidden, shown, read_only)]
    return View(lists[0], lists[1], lists[2], own_shared_memory=False)


def test_a_hidden_directory_is_empty_and_read_only(place: Path) -> None:
    """A pricer finds nothing there and leaves nothing there."""
    grid = place / "grid"

    def look() -> tuple[list[str], str, str]:
        return os.listdir(grid), refusal((grid / "new").mkdir), refusal(lambda: (grid / "x").write_text("x"))

    assert seen(plain([grid]), look) == ([], "EROFS", "EROFS")
    assert (grid / "token").read_text() == "grid/token"


def test_a_hidden_file_reads_as_empty(place: Path) -> None:
    """Its name stays, and what is written to it is lost."""
    keys = place / "home" / "keys"

    def look() -> tuple[str, str, int, list[str]]:
        text = keys.read_text()
        keys.write_text("x")
        return text, keys.read_text(), stat.S_IFMT(keys.stat().st_mode), sorted(os.listdir(keys.parent))

    assert seen(plain([keys]), look) == ("", "", stat.S_IFCHR, ["book", "keys"])
    assert keys.read_text() == "home/keys"


def test_links_to_what_is_hidden_lead_nowhere(place: Path) -> None:
    """What a link names is hidden where it lies; hard ways such as `..` and `/proc/self/cwd` find the same."""
    (place / "link").symlink_to(place / "grid")
    grid = place / "grid"

    def look() -> tuple[list[str], list[str], list[str]]:
        return os.listdir(grid), os.listdir(place / "link"), os.listdir(f"{place}/home/../grid")

    assert seen(plain([place / "link"]), look) == ([], [], [])
    within = plain([place / "link"], [grid / "nodes"])
    assert seen(within, look) == (["nodes"], ["nodes"], ["nodes"])


def test_directories_around_a_hidden_or_read_only_path_cannot_be_renamed(place: Path) -> None:
    """Else what replaces them would be found under the old name by the grid, or by the user's next login."""
    around, services = place / "grid", place / "home" / "config" / "systemd"
    services.mkdir(parents=True)

    def rename(path: Path) -> str:
        return refusal(lambda: path.rename(path.with_name("moved")))

    def look() -> tuple[str, str, str]:
        (services.parent / "settings").write_text("changed by an ordinary program")
        return rename(around), rename(services.parent), refusal((services / "unit").touch)

    assert seen(plain([around / "nodes"], read_only=[services]), look) == ("EBUSY", "EBUSY", "EROFS")
    assert (services.parent / "settings").exists()


def test_a_link_that_leads_to_a_protected_file_cannot_be_replaced(place: Path) -> None:
    """Managers of start-up files make such links; the file behind it can be read."""
    home = place / "home"
    (home / "dots").mkdir()
    (home / "dots" / "bashrc").write_text("ordinary")
    (home / "bashrc").symlink_to("dots/bashrc")
    (home / "way").symlink_to(place / "grid")

    def look() -> tuple[str, str, str, str, str]:
        forged = home / "forged"
        forged.write_text("changed")
        return (
            (home / "bashrc").read_text(),
            refusal((home / "bashrc").unlink),
            refusal(lambda: forged.rename(home / "bashrc")),
            refusal((home / "way").unlink),
            refusal(lambda: (home / "dots").rename(home / "others")),
        )

    wanted = plain([home / "way" / "token"], read_only=[home / "bashrc"])
    assert seen(wanted, look) == ("ordinary", "EBUSY", "EBUSY", "EBUSY", "EBUSY")


def test_permissions_that_are_taken_away_do_not_let_a_directory_be_renamed(place: Path) -> None:
    """Their owner can give them back."""
    closed = place / "home" / "closed"
    (closed / "app" / "code").mkdir(parents=True)
    closed.chmod(0o555)
    try:

        def look() -> str:
            closed.chmod(0o755)
            return refusal(lambda: (closed / "app").rename(closed / "old"))

        assert seen(plain([], read_only=[closed / "app" / "code"]), look) == "EBUSY"
    finally:
        closed.chmod(0o755)


def test_what_is_read_only_may_be_hidden(place: Path) -> None:
    """Under `strict` start-up files of the user are hidden with the home directory."""
    home = place / "home"
    assert seen(plain([home], read_only=[home / "book"]), lambda: os.listdir(home)) == []
    shown = plain([home], [home / "book"], [home / "book", home / "keys"])
    assert seen(shown, lambda: refusal(lambda: (home / "book").write_text("x"))) == "EROFS"


def test_what_is_shown_in_a_hidden_directory_is_the_real_one(place: Path) -> None:
    """A sandbox's own directory can be used below the hidden root; its neighbours do not exist."""
    own = place / "grid" / "nodes" / "own"

    def look() -> tuple[str, list[str], list[str]]:
        (own / "job" / "result").write_text("priced")
        return (own / "job" / "input").read_text(), os.listdir(place / "grid"), os.listdir(own.parent)

    assert seen(plain([place / "grid"], [own]), look) == ("grid/nodes/own/job/input", ["nodes"], ["own"])
    assert (own / "job" / "result").read_text() == "priced"


def test_the_way_to_what_is_shown_is_read_only(place: Path) -> None:
    """Directories that lead to it exist only in the view, and nothing can be put beside it."""
    own = place / "grid" / "nodes" / "own"

    def look() -> tuple[str, str]:
        return refusal((own.parent / "other").mkdir), refusal(lambda: own.rename(own.parent / "moved"))

    assert seen(plain([place / "grid"], [own]), look) == ("EROFS", "EROFS")


def test_what_is_hidden_within_what_is_shown_is_hidden(place: Path) -> None:
    """A shown directory of people does not bring the keys in it back."""
    home, keys = place / "home", place / "home" / "keys"

    def look() -> tuple[str, str]:
        return keys.read_text(), (home / "book").read_text()

    assert seen(plain([place, keys], [home]), look) == ("", "home/book")
    assert seen(plain([place, home / "keys"], [home, home / "book"]), look) == ("", "home/book")


def test_a_shown_file_in_a_hidden_directory_can_be_read(place: Path) -> None:
    """Only itself."""
    token = place / "grid" / "token"
    assert seen(plain([place], [token]), lambda: (token.read_text(), os.listdir(place))) == ("grid/token", ["grid"])


def test_a_shown_link_works_under_its_own_name(place: Path) -> None:
    """A program is often named by a link: both the name and its target are there."""
    (place / "home" / "bin").mkdir()
    (place / "home" / "bin" / "tool").write_text("program")
    (place / "grid" / "tool").symlink_to(place / "home" / "bin" / "tool")
    (place / "grid" / "bin").symlink_to("../home/bin")
    shown = [place / "grid" / "tool", place / "grid" / "bin" / "tool"]

    def look() -> list[str]:
        return [path.read_text() for path in (*shown[:1], place / "home" / "bin" / "tool")]

    assert seen(plain([place], shown), look) == ["program", "program"]


def test_a_shown_link_in_a_shown_directory_stays(place: Path) -> None:
    """As in a virtual environment, whose Python is a link to one elsewhere that is hidden as well."""
    target = place / "home" / "python" / "3.11" / "bin" / "tool"
    target.parent.mkdir(parents=True)
    target.write_text("program")
    (place / "grid" / "bin").mkdir()
    (place / "grid" / "bin" / "tool").symlink_to(target)
    shown = [place / "grid" / "bin", place / "grid" / "bin" / "tool"]
    assert seen(plain([place], shown), (place / "grid" / "bin" / "tool").read_text) == "program"


def test_mounts_within_what_is_shown_are_shown(place: Path) -> None:
    """A file system of the machine, such as one of the network, stays visible in the directory that contains it."""
    own = place / "grid" / "nodes" / "own"

    def mount() -> None:
        namespaces.mount_memory(str(own / "job"), "mode=755")
        (own / "job" / "mounted").write_text("there")

    assert seen(plain([place], [own]), lambda: os.listdir(own / "job"), mount) == ["mounted"]


def test_what_does_not_exist_is_skipped(place: Path) -> None:
    """Each machine has some of the paths only."""
    missing = place / "missing"
    wanted = plain([missing, place / "grid" / "x" / "y"], [missing, place / "grid" / "z"], [missing])
    assert seen(wanted, lambda: sorted(os.listdir(place))) == ["grid", "home"]


def test_read_only_paths_cannot_be_changed_and_can_be_read(place: Path) -> None:
    """Directories with all that is in them, and single files; others stay writable."""
    home, token = place / "home", place / "grid" / "token"

    def look() -> tuple[str, str, str, str, str]:
        return (
            refusal(lambda: (home / "keys").write_text("x")),
            refusal(lambda: (home / "new").write_text("x")),
            refusal(lambda: token.write_text("x")),
            refusal(lambda: token.rename(token.with_name("moved"))),
            refusal(lambda: (token.parent / "new").write_text("x")),
        )

    assert seen(plain([], [], [home, token]), look) == ("EROFS", "EROFS", "EROFS", "EBUSY", "")
    assert (home / "keys").read_text() == "home/keys"


def test_a_read_only_directory_brings_nothing_hidden_back(place: Path) -> None:
    """The grid's programs may lie around its state: what is hidden there stays hidden, what is shown stays writable."""
    own = place / "grid" / "nodes" / "own"

    def look() -> tuple[list[str], str, str, str]:
        (own / "result").write_text("priced")
        return (
            os.listdir(place / "grid"),
            (place / "home" / "keys").read_text(),
            refusal(lambda: (place / "home" / "book").write_text("x")),
            refusal(lambda: (place / "new").write_text("x")),
        )

    wanted = plain([place / "grid", place / "home" / "keys"], [own], [place])
    assert seen(wanted, look) == (["nodes"], "", "EROFS", "EROFS")
    assert (own / "result").read_text() == "priced"


def test_a_read_only_directory_keeps_what_is_mounted_in_it(place: Path) -> None:
    """An installation may have a part on another file system."""

    def mount() -> None:
        namespaces.mount_memory(str(place / "home"), "mode=755")
        (place / "home" / "mounted").write_text("there")

    assert seen(plain([], [], [place]), lambda: os.listdir(place / "home"), mount) == ["mounted"]


def test_read_only_holds_for_what_is_shown(place: Path) -> None:
    """A program that is shown again in a hidden directory cannot be changed either."""
    home = place / "home"
    look = [lambda: refusal(lambda: (home / "book").write_text("x"))]
    assert seen(plain([place], [home], [home]), look[0]) == "EROFS"


def test_shared_memory_is_the_sandboxs_own(place: Path) -> None:
    """It starts empty, its descriptor shows it to the node, and the machine's own is unchanged."""
    name = f"raygrid-test-{os.getpid()}"
    found: list[int] = []
    before = sorted(os.listdir(SHARED_MEMORY))

    def prepare() -> None:
        namespaces.unshare(namespaces.NEW_MOUNTS)
        namespaces.keep_mounts_inside()
        found.append(view.build(View()))

    box = RestrictedThreads(prepare, lambda: None)

    def work() -> tuple[list[str], int]:
        names = os.listdir(SHARED_MEMORY)
        Path(SHARED_MEMORY, name).write_text("mine")
        return names, stat.S_IMODE(os.stat(SHARED_MEMORY).st_mode)

    try:
        assert box.run(work) == ([], 0o1777)
        assert os.listdir(found[0]) == [name]
        assert not os.get_inheritable(found[0])
        assert sorted(os.listdir(SHARED_MEMORY)) == before
    finally:
        box.close()
        os.close(found[0])


def test_a_view_that_cannot_be_built_leaves_no_descriptor(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node on which sandboxes fail goes on; it must not run out of descriptors."""

    def fails(*_: object) -> None:
        raise OSError(errno.ENOSPC, "too many mounts")

    own = [place / "grid" / "nodes" / "own", place / "home"]
    monkeypatch.setattr(namespaces, "make_read_only", fails)
    monkeypatch.setattr(namespaces, "bind", fails)
    wanted = plain([place, place / "grid" / "token"], own)
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with pytest.raises(OSError, match="too many mounts"):
            seen(wanted, lambda: None)
    monkeypatch.setattr(namespaces, "mount_memory", fails)
    with pytest.raises(OSError, match="too many mounts"):
        seen(wanted, lambda: None)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("writable", [None, ()])
def test_processes_cannot_be_changed_through_proc(writable: tuple[str, ...] | None) -> None:
    """Their scores, priorities and names are read-only, also where /proc is mounted twice; own descriptors are not."""
    files = [f"{proc}/self/{name}" for proc in ("/proc", "/mnt") for name in ("oom_score_adj", "autogroup", "comm")]
    reading, writing = os.pipe()

    def look() -> tuple[list[str], str]:
        errors = [refusal(lambda path=path: os.close(os.open(path, os.O_WRONLY))) for path in files]  # type: ignore[misc]
        with open(f"/proc/self/fd/{writing}", "w", encoding="ascii") as again:
            again.write("written")
        return errors, os.read(reading, 20).decode()

    try:
        view_of = View(own_shared_memory=False, writable=writable)
        errors, written = seen(view_of, look, lambda: namespaces.bind("/proc", "/mnt"))
    finally:
        os.close(reading)
        os.close(writing)
    assert errors == ["EROFS"] * len(files)
    assert written == "written"
