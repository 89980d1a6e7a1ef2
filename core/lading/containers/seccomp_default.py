"""The default seccomp profile: an allow-list with the effect of Docker's.

In the form that users write (see :mod:`lading.containers.seccomp`). What is not listed fails with
EPERM; ``clone3`` fails with ENOSYS for containers without CAP_SYS_ADMIN, since its flags lie in
memory that a filter cannot read: C libraries then fall back to ``clone``, whose flags it can.
"""

from __future__ import annotations

import errno
from typing import Any

ALLOW = "SCMP_ACT_ALLOW"
DENY = "SCMP_ACT_ERRNO"

_FILES = """
access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat
faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown
fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat
fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd getdents
getdents64 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch
lchown lchown32 lgetxattr link linkat listmount listxattr listxattrat llistxattr _llseek
lremovexattr lseek lsetxattr lstat lstat64 memfd_create memfd_secret mkdir mkdirat mknod mknodat
newfstatat _newselect open openat openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev
pwritev2 read readahead readlink readlinkat readv removexattr removexattrat rename renameat
renameat2 rmdir sendfile sendfile64 setxattr setxattrat splice stat stat64 statfs statfs64
statmount statx symlink symlinkat sync sync_file_range syncfs tee truncate truncate64 ugetrlimit
umask unlink unlinkat utime utimensat utimensat_time64 utimes vmsplice write writev
"""
_PROCESSES = """
alarm arch_prctl capget capset execve execveat exit exit_group fork getegid getegid32 geteuid
geteuid32 getgid getgid32 getgroups getgroups32 getpgid getpgrp getpid getppid getpriority
getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid gettid getuid getuid32
ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset landlock_restrict_self
membarrier mseal pause pidfd_open pidfd_send_signal prctl prlimit64 process_mrelease
restart_syscall rseq seccomp set_robust_list get_robust_list set_thread_area get_thread_area
set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32
setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid
setreuid32 setrlimit setsid setuid setuid32 tgkill times tkill uname uretprobe vfork wait4 waitid
waitpid modify_ldt getcpu
"""
_SCHEDULING = """
sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity
sched_setattr sched_setparam sched_setscheduler sched_yield
"""
_MEMORY = """
brk cachestat madvise map_shadow_stack mincore mlock mlock2 mlockall mmap mmap2 mprotect mremap
msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages
"""
_SIGNALS_AND_TIME = """
adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime
clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep
rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo setitimer sigaltstack signalfd signalfd4
sigprocmask sigreturn sysinfo time timer_create timer_delete timer_getoverrun timer_gettime
timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64
timerfd_settime timerfd_settime64
"""
_WAITING = """
epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
epoll_wait_old eventfd eventfd2 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake
poll ppoll ppoll_time64 pselect6 pselect6_time64 select io_cancel io_destroy io_getevents
io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl
"""
_SOCKETS_AND_IPC = """
accept accept4 bind connect getpeername getrandom getsockname getsockopt ipc listen mq_getsetattr
mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64
mq_unlink msgctl msgget msgrcv msgsnd name_to_handle_at recv recvfrom recvmmsg recvmmsg_time64
recvmsg semctl semget semop semtimedop semtimedop_time64 send sendmmsg sendmsg sendto setsockopt
shmat shmctl shmdt shmget shutdown socketcall socketpair
"""

#: Flags of clone(2) that make namespaces (CLONE_NEW* but CLONE_NEWTIME).
_NAMESPACE_FLAGS = 0x7E020000
#: Address families of socket(2). Left out are some that reach past network namespaces (AF_VSOCK
#: the hypervisor, AF_ALG the kernel's ciphers) and some that only old kernels had.
_ALL_BELOW = 12
_OTHER_FAMILIES = (*range(13, 19), 21, 22, 24, *range(26, 34), 35, 36, 39, *range(41, 46))
_PERSONALITIES = (0x0, 0x0008, 0x20000, 0x20008, 0xFFFFFFFF)


def _rule(names: str, *capabilities: str, **members: Any) -> dict[str, Any]:
    rule: dict[str, Any] = {"names": names.split(), "action": ALLOW, **members}
    if capabilities:
        rule["includes"] = {"caps": [f"CAP_{name}" for name in capabilities]}
    return rule


def _without(capability: str) -> dict[str, Any]:
    return {"caps": [f"CAP_{capability}"]}


PROFILE: dict[str, Any] = {
    "defaultAction": DENY,
    "defaultErrnoRet": errno.EPERM,
    "archMap": [
        {
            "architecture": "SCMP_ARCH_X86_64",
            "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        },
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
        {"architecture": "SCMP_ARCH_S390X", "subArchitectures": ["SCMP_ARCH_S390"]},
        {"architecture": "SCMP_ARCH_RISCV64", "subArchitectures": None},
    ],
    "syscalls": [
        _rule(
            _FILES
            + _PROCESSES
            + _SCHEDULING
            + _MEMORY
            + _SIGNALS_AND_TIME
            + _WAITING
            + _SOCKETS_AND_IPC
        ),
        _rule("process_vm_readv process_vm_writev ptrace", includes={"minKernel": "4.8"}),
        _rule("socket", args=[{"index": 0, "value": _ALL_BELOW, "op": "SCMP_CMP_LT"}]),
        *(
            _rule("socket", args=[{"index": 0, "value": family, "op": "SCMP_CMP_EQ"}])
            for family in _OTHER_FAMILIES
        ),
        *(
            _rule("personality", args=[{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}])
            for value in _PERSONALITIES
        ),
        _rule(
            "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
            includes={"arches": ["arm", "arm64"]},
        ),
        _rule("riscv_flush_icache riscv_hwprobe", includes={"arches": ["riscv64"]}),
        _rule(
            "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr",
            includes={"arches": ["s390", "s390x"]},
        ),
        _rule("sync_file_range2 swapcontext", includes={"arches": ["ppc64le"]}),
        _rule("open_by_handle_at", "DAC_READ_SEARCH"),
        _rule(
            "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie "
            "lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr "
            "move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname "
            "sethostname setns syslog umount umount2 unshare",
            "SYS_ADMIN",
        ),
        _rule(
            "clone",
            args=[
                {
                    "index": 0,
                    "value": _NAMESPACE_FLAGS,
                    "valueTwo": 0,
                    "op": "SCMP_CMP_MASKED_EQ",
                }
            ],
            excludes={**_without("SYS_ADMIN"), "arches": ["s390", "s390x"]},
        ),
        _rule(
            "clone",
            args=[
                {
                    "index": 1,
                    "value": _NAMESPACE_FLAGS,
                    "valueTwo": 0,
                    "op": "SCMP_CMP_MASKED_EQ",
                }
            ],
            includes={"arches": ["s390", "s390x"]},
            excludes=_without("SYS_ADMIN"),
        ),
        {
            "names": ["clone3"],
            "action": DENY,
            "errnoRet": errno.ENOSYS,
            "excludes": _without("SYS_ADMIN"),
        },
        _rule("reboot", "SYS_BOOT"),
        _rule("chroot", "SYS_CHROOT"),
        _rule("delete_module finit_module init_module", "SYS_MODULE"),
        _rule("acct", "SYS_PACCT"),
        _rule(
            "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
            "SYS_PTRACE",
        ),
        _rule("iopl ioperm", "SYS_RAWIO"),
        _rule("settimeofday stime clock_settime clock_settime64", "SYS_TIME"),
        _rule("vhangup", "SYS_TTY_CONFIG"),
        _rule("get_mempolicy mbind set_mempolicy set_mempolicy_home_node", "SYS_NICE"),
        _rule("syslog", "SYSLOG"),
        _rule("bpf", "BPF"),
        _rule("perf_event_open", "PERFMON"),
    ],
}
