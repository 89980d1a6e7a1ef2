"""``RUN --mount`` as a user sees it, with real clients."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from lading.testing.contexts import with_ssh, write_files
from lading.testing.daemon import Daemon

pytestmark = pytest.mark.root


def build(
    daemon: Daemon, client: str, place: Path, files: Mapping[str, str], *flags: str
) -> tuple[int, str]:
    write_files(place, files)
    done = daemon.client(client, "build", "--force-rm", *flags, str(place), check=False)
    return done.returncode, (done.stdout + done.stderr).decode()


def test_binds_of_the_context(daemon: Daemon, client: str, tmp_path: Path) -> None:
    text = (
        f"FROM busybox\nENV client={client}\n"
        "RUN --mount=target=/ctx,source=sub cat /ctx/f && ! touch /ctx/new 2>&1\n"
        "RUN --mount=target=/one,src=sub/f cat /one\n"
        "RUN --mount=target=/ctx,rw touch /ctx/new && echo made $(ls /ctx)\n"
        "RUN --mount=target=/ctx echo then $(ls /ctx); echo left $(ls -d /one)\n"
    )
    code, out = build(daemon, client, tmp_path, {"Dockerfile": text, "sub/f": "F1\n"})
    assert code == 0, out
    assert out.count("F1\n") == 2
    assert "Read-only file system" in out
    assert "made Dockerfile new sub\n" in out
    # What was written is gone, and so are the mount points.
    assert "then Dockerfile sub\n" in out
    assert "left\n" in out
    code, again = build(daemon, client, tmp_path, {"sub/f": "F2\n"})
    assert code == 0, again
    # The content that is mounted is part of the key.
    assert again.count("F2\n") == 2


def test_binds_of_stages_and_images(daemon: Daemon, tmp_path: Path) -> None:
    text = (
        "FROM busybox AS a\nRUN mkdir -p /d/e && echo deep > /d/e/x\nFROM busybox\n"
        "RUN --mount=from=a,source=/d/e,target=/m cat /m/x; ! touch /m/y 2>&1\n"
        "RUN --mount=from=a,source=/d/e/x,target=/file cat /file\n"
        "RUN --mount=from=a,source=/d/e,target=/m,rw echo changed > /m/x; cat /m/x\n"
        "RUN --mount=from=busybox,target=/m echo $(ls -d /m/bin /d)\n"
    )
    code, out = build(daemon, "lading", tmp_path, {"Dockerfile": text})
    assert code == 0, out
    assert out.count("deep\n") == 2
    assert "changed\n" in out
    assert "\n/m/bin\n" in out
    text = "FROM scratch\nRUN --mount=from=busybox,source=/bin,target=/bin echo $(ls /bin/sh)\n"
    code, out = build(daemon, "lading", tmp_path, {"Dockerfile": text})
    assert code == 0, out
    assert "\n/bin/sh\n" in out


def test_caches(daemon: Daemon, tmp_path: Path) -> None:
    step = "RUN --mount=type=cache,id=t-{id},target=/c{more} echo line >> /c/log; {then}\n"
    text = (
        "FROM busybox AS a\nRUN mkdir /d && echo seed > /d/x\nFROM busybox\n"
        + step.format(id="one", more=",mode=0750,uid=5,gid=6", then="stat -c '%a %u %g' /c")
        + step.format(id="one", more=",sharing=locked", then="echo count $(wc -l < /c/log)")
        + step.format(id="one", more=",ro", then="echo ro $(wc -l < /c/log)")
        + step.format(id="two", more=",from=a,source=/d", then="cat /c/x")
    )
    code, out = build(daemon, "lading", tmp_path, {"Dockerfile": text})
    assert code == 0, out
    for line in ("750 5 6", "count 2", "ro 2", "seed"):
        assert f"\n{line}\n" in out, out
    # It outlives the build.
    code, again = build(daemon, "lading", tmp_path, {}, "--no-cache")
    assert "\ncount 4\n" in again, again


def test_a_locked_cache_has_one_user_at_a_time(daemon: Daemon, tmp_path: Path) -> None:
    """Stages run side by side; noclobber shows whether their RUNs did."""
    run = (
        "RUN --mount=type=cache,id=lock,target=/c,sharing={how} set -C; "
        "{{ echo > /c/lock; }} 2>/dev/null && sleep 0.5 && rm /c/lock && echo alone || echo both\n"
    )
    for how in ("locked", "private"):
        one = run.format(how=how)
        text = (
            f"FROM busybox AS a\n{one}FROM busybox AS b\n{one}FROM busybox\n"
            "COPY --from=a /etc/passwd /a\nCOPY --from=b /etc/passwd /b\n"
        )
        code, out = build(daemon, "lading", tmp_path, {"Dockerfile": text}, "--no-cache")
        assert code == 0, out
        assert out.count("\nalone\n") == 2, out


def test_tmpfs(daemon: Daemon, tmp_path: Path) -> None:
    text = (
        "FROM busybox\n"
        "RUN --mount=type=tmpfs,target=/t,size=2m df -k /t | awk '/t$/{print \"size\", $2}'\n"
    )
    code, out = build(daemon, "lading", tmp_path, {"Dockerfile": text})
    assert code == 0, out
    assert "size 2048\n" in out


def test_secrets_are_seen_and_kept_nowhere(daemon: Daemon, tmp_path: Path) -> None:
    place = tmp_path / "context"
    secret = f"whisper-{os.getpid()}"
    (tmp_path / "s").write_text(secret)
    test = 'test ${#T} -gt 9 && test "$(cat /run/secrets/tok)" = "$T"'
    text = (
        "FROM busybox\n"
        "RUN --mount=type=secret,id=tok,required=true --mount=type=secret,id=tok,env=T "
        f"{test} && echo seen $(stat -c '%a %u' /run/secrets/tok)\n"
        "RUN --mount=type=secret,id=tok,target=/x,mode=444,uid=3 echo as $(stat -c '%a %u' /x)\n"
        "RUN --mount=type=secret,id=none echo without $(ls /run/secrets /x)\n"
    )
    files = {"Dockerfile": text}
    place.mkdir()
    code, out = build(
        daemon, "lading", place, files, "--secret", f"id=tok,src={tmp_path / 's'}", "-t", "secret"
    )
    assert code == 0, out
    assert "seen 400 0\n" in out
    assert "as 444 3\n" in out
    assert "without\n" in out
    saved = daemon.client("lading", "save", "secret").stdout
    assert secret.encode() not in saved
    found = subprocess.run(["grep", "-rl", secret, str(daemon.root)], capture_output=True)
    assert found.stdout == b""
    daemon.client("lading", "rmi", "secret")


def test_a_secret_that_is_required(daemon: Daemon, client: str, tmp_path: Path) -> None:
    text = "FROM busybox\nRUN --mount=type=secret,id=tok,required=true true\n"
    code, out = build(daemon, client, tmp_path, {"Dockerfile": text})
    assert code != 0
    assert "Dockerfile:2: secret tok: not found" in out


def test_secret_from_the_environment(
    daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN_OF_TEST", "abc")
    text = "FROM busybox\nRUN --mount=type=secret,id=t od -c /run/secrets/t\n"
    code, out = build(
        daemon, "lading", tmp_path, {"Dockerfile": text}, "--secret", "id=t,env=TOKEN_OF_TEST"
    )
    assert code == 0, out
    assert "a   b   c" in out


def test_ssh_agent_is_forwarded(daemon: Daemon, tmp_path: Path) -> None:
    ssh = with_ssh(tmp_path)
    place = ssh.context
    text = f"FROM busybox\n{ssh.step}RUN echo later $SSH_AUTH_SOCK $(ls /run)\n"
    code, out = build(daemon, "lading", place, {"Dockerfile": text}, "--ssh", f"default={ssh.key}")
    assert code == 0, out
    assert "(ED25519)" in out
    assert "later\n" in out
    code, out = build(daemon, "lading", place, {}, "--no-cache")
    assert code != 0
    assert "no SSH key default forwarded" in out


def test_documents_run(daemon: Daemon, client: str, tmp_path: Path) -> None:
    text = (
        "FROM busybox\nARG v=1\n"
        "RUN <<E\n#!/bin/cat\nscript $v\nE\n"
        "RUN <<-A cat; cat <<'B'\n\ttabs\n\tA\nraw $v\nB\n"
        "RUN <<E\necho one $v\necho two\nE\n"
        "COPY <<E <<'F' /d/\nvalue $v\nE\nvalue $v\nF\n"
        "COPY --chmod=600 --chown=3:4 <<E /owned\nE\n"
        "RUN cat /d/E /d/F; stat -c '%a %u %g' /owned\n"
    )
    code, out = build(daemon, client, tmp_path, {"Dockerfile": text}, "--no-cache")
    assert code == 0, out
    for lines in ("#!/bin/cat\nscript $v\n", "tabs\nraw $v\n", "one 1\ntwo\n",
                  "value 1\nvalue $v\n600 3 4\n"):  # fmt: skip
        assert lines in out, out


@pytest.mark.parametrize(
    ("mount", "told"),
    [
        ("type=nope,target=/x", 'unsupported mount type "nope"'),
        ("type=secrt,id=x", "did you mean secret?"),
        ("type=cache,targt=/x", "unexpected key 'targt'"),
        ("type=cache", "needs a target"),
        ("type=cache,target=/x,sharing=no", "unsupported sharing value 'no'"),
        ("type=bind,target=/x,source=../../etc", "outside the build context"),
        ("type=bind,target=/x,source=out", "not found in build context"),
        ("type=tmpfs,target=/", "cannot be /"),
    ],
)
def test_wrong_mounts(daemon: Daemon, tmp_path: Path, mount: str, told: str) -> None:
    (tmp_path / "out").symlink_to("/etc/shadow")
    text = f"FROM busybox\nRUN --mount={mount} true\n"
    code, out = build(daemon, "lading", tmp_path, {"Dockerfile": text})
    assert code != 0
    assert "Dockerfile:2: " in out
    assert told in out


def test_more_rights_are_asked_for(daemon: Daemon, client: str, tmp_path: Path) -> None:
    rights = {"--security=insecure": "security.insecure", "--network=host": "network.host"}
    for flag, entitlement in rights.items():
        probe = "grep CapEff /proc/self/status; echo net $(ls /sys/class/net)"
        text = f"FROM busybox\nRUN {flag} {probe}\n"
        code, out = build(daemon, client, tmp_path, {"Dockerfile": text})
        assert code != 0
        assert f"RUN {flag} is not allowed (give it: --allow {entitlement})" in out
        if client == "lading":
            code, out = build(daemon, client, tmp_path, {}, "--allow", entitlement)
            assert code == 0, out
            insecure = entitlement == "security.insecure"
            assert ("CapEff:\t00000000a80425fb" not in out) == insecure
            assert ("net eth0 lo\n" in out) == insecure


def test_a_bind_of_a_stage_goes_by_what_is_in_there(daemon: Daemon, tmp_path: Path) -> None:
    """Though the stage itself was built anew."""
    files = {
        "Dockerfile": "FROM busybox AS a\nCOPY f /f\nRUN mkdir /out && wc -c < /f > /out/size\n"
        "FROM busybox\n"
        "RUN --mount=from=a,source=/out,target=/o echo sa''id; cat /o/size > /seen\n",
        "f": "one",
    }
    assert "said\n" in build(daemon, "lading", tmp_path, files)[1]
    assert "said\n" not in build(daemon, "lading", tmp_path, {"f": "two"})[1]
    assert "said\n" not in build(daemon, "lading", tmp_path, {"f": "two"})[1]
    assert "said\n" in build(daemon, "lading", tmp_path, {"f": "three"})[1]
