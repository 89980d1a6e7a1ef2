"""Kernels other than the host's, booted on the host's root to run one command.

``uml``: Debian's user-mode-linux, a plain process with the root through hostfs. ``qemu``: any
kernel and its modules from a directory, emulated or with KVM. It sees the root through 9p, writes
into memory, and has an ext4 of its own for what tests make.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

UML = shutil.which("linux.uml")
UML_MODULES = Path("/usr/lib/uml/modules")
QEMU = shutil.which("qemu-system-x86_64")

#: What the guest of QEMU needs before it has a root.
_EARLY = ["9p", "9pnet_virtio", "virtio_pci", "virtio_blk", "ext4", "overlay"]

#: What the tests use, where the kernel does not have it built in.
_MODULES = (
    "aufs overlay loop quota_v2 xfs bridge veth iptable_nat iptable_filter ip6table_nat"
    " ip6table_filter xt_MASQUERADE xt_addrtype xt_conntrack xt_nat xt_comment xt_tcpudp xt_mark"
    " ipt_REJECT nf_conntrack_netlink"
)
#: Not for user-mode-linux, which has nf_tables without its chains of the type nat.
_NFTABLES = " nf_tables nft_chain_nat nft_masq nft_ct"

#: What a module's ".modinfo" section says of the modules that it needs.
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")


def uml(command: str, folder: Path, memory: str = "1500M", seconds: int = 900) -> tuple[int, str]:
    """Boot, run one shell command, power off; its exit code and output."""
    console = _run(
        [
            str(UML),
            f"mem={memory}",
            "root=/dev/root",
            "rootfstype=hostfs",
            "rootflags=/",
            "rw",
            f"init={HERE / 'init.sh'}",
            "con=null",
            "con0=null,fd:1",
            *_told(command, folder, UML_MODULES, _MODULES),
        ],
        seconds,
    )
    return _result(folder, console)


def qemu(
    command: str, folder: Path, kernel: Path, memory: str = "3G", seconds: int = 3600
) -> tuple[int, str]:
    """The same with ``kernel``/boot/vmlinuz-* and ``kernel``/lib/modules, as packages have them."""
    (image,) = sorted((kernel / "boot").glob("vmlinuz-*"))
    modules = kernel / "lib/modules"
    (folder / "initrd").write_bytes(_initrd(in_order(modules, _EARLY)))
    with (folder / "disk").open("wb") as disk:
        disk.truncate(8 << 30)
    # Emulation works everywhere; "-accel kvm -cpu host" is faster where it works.
    fast = os.environ.get("LADING_QEMU", "-accel tcg -cpu max").split()
    console = _run(
        [
            str(QEMU),
            *fast,
            *("-smp", "2", "-m", memory, "-no-reboot", "-display", "none", "-serial", "stdio"),
            *("-nic", "none", "-kernel", str(image), "-initrd", str(folder / "initrd")),
            *("-drive", f"file={folder / 'disk'},format=raw,if=virtio,cache=unsafe"),
            *_share("root", Path("/"), ",readonly=on"),
            *_share("folder", folder, ""),
            "-append",
            " ".join(
                [
                    "console=ttyS0",
                    "panic=-1",
                    *_told(command, folder, modules, _MODULES + _NFTABLES),
                ]
            ),
        ],
        seconds,
    )
    return _result(folder, console)


def in_order(top: Path, wanted: Iterable[str]) -> list[Path]:
    """The files of modules and of those they need, which come first; a name that the directory has
    not is built into the kernel, or absent."""
    files = {path.stem.replace("-", "_"): path.resolve() for path in top.rglob("*.ko")}
    found: dict[str, Path] = {}

    def visit(name: str) -> None:
        name = name.replace("-", "_")
        if name in found or name not in files:
            return
        depends = _DEPENDS.search(files[name].read_bytes())
        for needed in depends[1].decode().split(",") if depends else []:
            visit(needed)
        found[name] = files[name]

    for name in wanted:
        visit(name)
    return list(found.values())


def _told(command: str, folder: Path, top: Path, modules: str) -> list[str]:
    """What ``init.sh`` reads: words of the kernel's command line become its environment."""
    (folder / "command").write_text(command)
    (folder / "modules").write_text("".join(f"{m}\n" for m in in_order(top, modules.split())))
    return [
        "quiet",
        f"LADING_GUEST={folder}",
        f"LADING_GUEST_CWD={ROOT}",
        f"LADING_GUEST_INIT={HERE / 'init.sh'}",
    ]


def _share(tag: str, path: Path, more: str) -> Iterator[str]:
    yield from ("-fsdev", f"local,id={tag},path={path},security_model=none{more}")
    yield from ("-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}")


def _run(arguments: list[str], seconds: int) -> str:
    """Run the machine to its end, or end it; what it wrote on its console."""
    try:
        done = subprocess.run(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            text=True,
            errors="replace",
        )
    except subprocess.TimeoutExpired as expired:
        output = expired.stdout or b""
        return output.decode(errors="replace") if isinstance(output, bytes) else output
    return done.stdout


def _result(folder: Path, console: str) -> tuple[int, str]:
    status, output = folder / "status", folder / "output"
    text = output.read_text(errors="replace") if output.exists() else ""
    assert status.exists(), f"the guest did not finish:\n{text}\n{console[-4000:]}"
    return int(status.read_text()), text


_INIT = """\
#!/bin/busybox sh
/bin/busybox --install -s /bin
mkdir -p /root
mount -t proc proc /proc
for module in $(cat /modules/order); do insmod /modules/$module; done
mount -t devtmpfs devtmpfs /dev
options=trans=virtio,version=9p2000.L,msize=512000
mount -t 9p -o ro,$options,cache=loose root /below || exec poweroff -f
mount -t tmpfs tmpfs /above
mkdir /above/upper /above/work
mount -t overlay -o lowerdir=/below,upperdir=/above/upper,workdir=/above/work overlay /root ||
    exec poweroff -f
mount --move /dev /root/dev
umount /proc
mount -t 9p -o $options folder /root$LADING_GUEST || exec poweroff -f
exec switch_root /root $LADING_GUEST_INIT
"""


_DIRECTORIES = ("above", "below", "bin", "dev", "modules", "proc")


def _initrd(modules: list[Path]) -> bytes:
    """An initial file system with busybox and some modules (cpio "newc", initramfs format)."""
    entries = [(name, 0o40755, b"") for name in _DIRECTORIES]
    entries += [(f"modules/{m.name}", 0o100644, m.read_bytes()) for m in modules]
    order = "\n".join(m.name for m in modules)
    entries += [
        ("modules/order", 0o100644, order.encode()),
        ("bin/busybox", 0o100755, Path("/bin/busybox").read_bytes()),
        ("init", 0o100755, _INIT.encode()),
        ("TRAILER!!!", 0, b""),
    ]
    return b"".join(_entry(n, *entry) for n, entry in enumerate(entries, start=1))


def _entry(number: int, name: str, mode: int, content: bytes) -> bytes:
    title = name.encode() + b"\0"
    numbers = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(title), 0)
    head = b"070701" + b"".join(b"%08X" % n for n in numbers) + title
    return _padded(head) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
