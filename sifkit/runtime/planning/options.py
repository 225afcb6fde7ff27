"""Options of ``exec``, ``run`` and ``shell``: one table with every option of Apptainer's, and what becomes of it here. Pure.

An option works, has no effect here, or is refused with the reason. Names, letters and variables are those of Apptainer 1.4.5
(tried); ``--tmpfs-size`` and ``--dry-run`` are ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from ...errors import NotYetError, UsageError, show

__all__ = [
    "FALSE",
    "OPTIONS",
    "TRUE",
    "RunOption",
    "RunOptions",
    "Value",
    "check_options",
    "no_effect_notes",
    "options_for",
    "with_variables",
]

Kind = Literal["flag", "text", "list"]
Status = Literal["works", "no effect", "refused"]
Value = bool | str | tuple[str, ...]
"""Value of an option by its kind."""

LAYERS, FILES, PROCESS, ENVIRONMENT, OTHER = "Layers", "Directories and files", "Process", "Environment", "Other"
CGROUPS = "limits need cgroups; use those of your batch system, or systemd-run --user --scope -p MemoryMax=4G sifkit ..."
CAPABILITIES = "capabilities are not changed: root keeps its own, a plain user has none"
REGISTRY = "images are not fetched from a registry"
NEEDING_VALUE = {"home", "env", "tmpfs-size", "pem-path"}
HELPERS = "no helper programs are used for --fakeroot"


class RunOption(NamedTuple):
    """Option. ``kind`` "list": may be repeated. ``variables``: names after APPTAINER_ and SINGULARITY_, the first wins.

    ``reason``: why it has no effect or is refused. ``only``: the verbs that have it, all if empty. ``other_names``: mean the
    same.
    """

    name: str
    kind: Kind
    help: str = ""
    letter: str = ""
    metavar: str = ""
    section: str = OTHER
    status: Status = "works"
    reason: str = ""
    variables: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    other_names: tuple[str, ...] = ()
    hidden: bool = False

    @property
    def key(self) -> str:
        """Name of the field in ``RunOptions``."""
        return self.name.replace("-", "_")

    @property
    def spelling(self) -> str:
        """Name as it is typed."""
        return f"--{self.name}"

    @property
    def accepts_empty(self) -> bool:
        """True if an empty value stands for none, as with Apptainer: scripts pass variables that may not be set."""
        return self.kind != "flag" and self.name not in NEEDING_VALUE


class RunOptions(NamedTuple):
    """Values of the options that work. Text is as given; empty means that the option is not given."""

    overlay: tuple[str, ...] = ()
    writable: bool = False
    writable_tmpfs: bool = False
    tmpfs_size: str = ""
    bind: tuple[str, ...] = ()
    mount: tuple[str, ...] = ()
    home: str = ""
    no_home: bool = False
    cwd: str = ""
    contain: bool = False
    containall: bool = False
    workdir: str = ""
    scratch: tuple[str, ...] = ()
    no_mount: tuple[str, ...] = ()
    cleanenv: bool = False
    env: tuple[str, ...] = ()
    env_file: tuple[str, ...] = ()
    no_eval: bool = False
    fakeroot: bool = False
    userns: bool = False
    pid: bool = False
    no_pid: bool = False
    ipc: bool = False
    uts: bool = False
    hostname: str = ""
    net: bool = False
    network: str = ""
    dns: str = ""
    no_init: bool = False
    no_umask: bool = False
    compat: bool = False
    nv: bool = False
    no_nv: bool = False
    rocm: bool = False
    no_rocm: bool = False
    containlibs: tuple[str, ...] = ()
    app: str = ""
    shell: str = ""
    dry_run: bool = False
    no_privs: bool = False
    keep_privs: bool = False
    given: frozenset[str] = frozenset()

    @classmethod
    def of(cls, values: Mapping[str, Value]) -> RunOptions:
        """Return the options with these values, by their fields; those of refused options and without effect are left out."""
        known = {option.key for option in OPTIONS if option.status == "works"}
        found = {key: value for key, value in values.items() if key in known and value not in (False, "", ())}
        return cls(**found, given=frozenset(found))  # type: ignore[arg-type]


def _refused(name: str, kind: Kind, reason: str, *variables: str, letter: str = "", only: tuple[str, ...] = ()) -> RunOption:
    return RunOption(name, kind, status="refused", reason=reason, variables=variables, letter=letter, only=only, hidden=True)


def _unneeded(name: str, kind: Kind, reason: str, *variables: str) -> RunOption:
    return RunOption(name, kind, status="no effect", reason=reason, variables=variables, hidden=True)


OPTIONS: tuple[RunOption, ...] = (
    RunOption(
        "overlay",
        "list",
        "overlay above the image: an ext3 image, a directory, a squashfs or a SIF; only one is written to, :ro for the others",
        "o",
        "PATH[:ro]",
        LAYERS,
        variables=("OVERLAY", "OVERLAYIMAGE"),
    ),
    RunOption(
        "writable", "flag", "write to the overlay in the image, or to the directory", "w", "", LAYERS, variables=("WRITABLE",)
    ),
    RunOption(
        "writable-tmpfs", "flag", "write to memory; changes are lost at the end", "", "", LAYERS, variables=("WRITABLE_TMPFS",)
    ),
    RunOption("tmpfs-size", "text", "size of --writable-tmpfs, as 2G", "", "SIZE", LAYERS),
    RunOption(
        "bind",
        "list",
        "show a file or directory of the host, as SOURCE[:TARGET[:ro]], or of an image, as IMAGE:TARGET:image-src=/PATH[,ro]; "
        "several with commas",
        "B",
        "SPEC",
        FILES,
        variables=("BIND", "BINDPATH"),
    ),
    RunOption(
        "mount",
        "list",
        "the same in Docker's form: type=bind,source=/a,destination=/b,ro",
        "",
        "SPEC",
        FILES,
        variables=("MOUNT",),
    ),
    RunOption("home", "text", "home directory, as SOURCE[:TARGET]", "H", "SPEC", FILES, variables=("HOME",)),
    RunOption("no-home", "flag", "do not show the home directory", "", "", FILES, variables=("NO_HOME",)),
    RunOption(
        "cwd",
        "text",
        "working directory in the container",
        "",
        "PATH",
        FILES,
        variables=("CWD", "TARGET_CWD", "PWD", "TARGET_PWD"),
        other_names=("pwd",),
    ),
    RunOption("contain", "flag", "show no directories of the host but binds", "c", "", FILES, variables=("CONTAIN",)),
    RunOption(
        "containall", "flag", "the same, with own PIDs, IPC and a clean environment", "C", "", FILES, variables=("CONTAINALL",)
    ),
    RunOption(
        "workdir", "text", "directory for /tmp, /var/tmp and home with --contain", "W", "DIR", FILES, variables=("WORKDIR",)
    ),
    RunOption(
        "scratch",
        "list",
        "empty directory at this path in the container",
        "S",
        "PATH",
        FILES,
        variables=("SCRATCH", "SCRATCHDIR"),
    ),
    RunOption(
        "no-mount",
        "list",
        "leave out a mount: proc sys dev devpts home tmp hostfs cwd, bind-paths, or the path of a bind of the site",
        "",
        "NAME",
        FILES,
        variables=("NO_MOUNT",),
    ),
    RunOption("cleanenv", "flag", "pass no variables of the host", "e", "", ENVIRONMENT, variables=("CLEANENV",)),
    RunOption("env", "list", "set variables; several with commas", "", "NAME=VALUE", ENVIRONMENT),
    RunOption("env-file", "list", "set the variables in a file", "", "FILE", ENVIRONMENT, variables=("ENV_FILE",)),
    RunOption("no-eval", "flag", "do not replace $NAME in values of variables", "", "", ENVIRONMENT, variables=("NO_EVAL",)),
    RunOption("app", "text", "app of the image (SCIF)", "", "NAME", PROCESS, variables=("APP", "APPNAME")),
    RunOption("shell", "text", "shell to start", "s", "PATH", PROCESS, variables=("SHELL",), only=("shell",)),
    RunOption(
        "fakeroot", "flag", "be root in the container; there is this one user only", "f", "", PROCESS, variables=("FAKEROOT",)
    ),
    RunOption(
        "userns", "flag", "run in a user namespace, as root too", "u", "", PROCESS, variables=("USERNS", "UNSHARE_USERNS")
    ),
    RunOption("pid", "flag", "have own process numbers", "p", "", PROCESS, variables=("PID", "UNSHARE_PID")),
    RunOption("no-pid", "flag", "keep the host's process numbers", "", "", PROCESS, variables=("NO_PID",)),
    RunOption("ipc", "flag", "have own shared memory and message queues", "i", "", PROCESS, variables=("IPC", "UNSHARE_IPC")),
    RunOption("uts", "flag", "have an own host name", "", "", PROCESS, variables=("UTS", "UNSHARE_UTS")),
    RunOption("hostname", "text", "host name in the container", "", "NAME", PROCESS, variables=("HOSTNAME",)),
    RunOption(
        "net", "flag", "have an own network; only with --network none", "n", "", PROCESS, variables=("NET", "UNSHARE_NET")
    ),
    RunOption("network", "text", "none: have no network", "", "none", PROCESS, variables=("NETWORK",)),
    RunOption("dns", "text", "name servers, with commas", "", "ADDRESSES", PROCESS, variables=("DNS",)),
    RunOption("no-init", "flag", "start the command itself as process 1", "", "", PROCESS, variables=("NOSHIMINIT",)),
    RunOption("no-umask", "flag", "set the umask 0022", "", "", PROCESS, variables=("NO_UMASK",)),
    RunOption(
        "compat",
        "flag",
        "as Docker: --containall --no-init --no-umask --no-eval --writable-tmpfs",
        "",
        "",
        PROCESS,
        variables=("COMPAT",),
    ),
    RunOption("nv", "flag", "show Nvidia GPUs and their libraries", "", "", PROCESS, variables=("NV",)),
    RunOption("rocm", "flag", "show AMD GPUs and their libraries", "", "", PROCESS, variables=("ROCM",)),
    RunOption("no-privs", "flag", "as root, run without capabilities", "", "", PROCESS, variables=("NO_PRIVS",)),
    RunOption(
        "keep-privs", "flag", "as root, keep capabilities where the site drops them", "", "", PROCESS, variables=("KEEP_PRIVS",)
    ),
    RunOption("dry-run", "flag", "print what would be done, and run nothing", "", "", OTHER),
    RunOption("no-nv", "flag", "do not show Nvidia GPUs", variables=("NV_OFF", "NO_NV"), hidden=True),
    RunOption("no-rocm", "flag", "do not show AMD GPUs", variables=("ROCM_OFF", "NO_ROCM"), hidden=True),
    RunOption(
        "containlibs",
        "list",
        "libraries of the host to show, with commas",
        "",
        "PATHS",
        variables=("CONTAINLIBS",),
        hidden=True,
    ),
    _unneeded("disable-cache", "flag", REGISTRY, "DISABLE_CACHE"),
    _unneeded("no-https", "flag", REGISTRY, "NO_HTTPS", "NOHTTPS"),
    _unneeded("authfile", "text", REGISTRY, "AUTHFILE"),
    _unneeded("docker-host", "text", REGISTRY, "DOCKER_HOST"),
    _unneeded("docker-login", "flag", REGISTRY, "DOCKER_LOGIN"),
    _unneeded("unsquash", "flag", "images are unpacked only where nothing else works", "UNSQUASH"),
    _unneeded("ignore-subuid", "flag", HELPERS, "IGNORE_SUBUID"),
    _unneeded("ignore-fakeroot-command", "flag", HELPERS, "IGNORE_FAKEROOT_COMMAND"),
    _refused("add-caps", "text", CAPABILITIES, "ADD_CAPS"),
    _refused("drop-caps", "text", CAPABILITIES, "DROP_CAPS"),
    _refused("allow-setuid", "flag", "set-user-ID programs never work in a container here", "ALLOW_SETUID"),
    _refused("security", "list", "SELinux, AppArmor and seccomp profiles are not applied", "SECURITY"),
    _refused("apply-cgroups", "text", CGROUPS, "APPLY_CGROUPS"),
    *(
        _refused(name, "flag" if name == "oom-kill-disable" else "text", CGROUPS, name.upper().replace("-", "_"))
        for name in (
            "blkio-weight",
            "blkio-weight-device",
            "cpu-shares",
            "cpus",
            "cpuset-cpus",
            "cpuset-mems",
            "memory",
            "memory-reservation",
            "memory-swap",
            "oom-kill-disable",
            "pids-limit",
        )
    ),
    _refused("fusemount", "list", "FUSE programs are not started; mount it before, and bind the mount point", "FUSESPEC"),
    _refused("netns-path", "text", "network namespaces of others are not joined", "NETNS_PATH"),
    _refused("network-args", "list", "networks are not set up; --network none works", "NETWORK_ARGS"),
    _refused("nvccli", "flag", "nvidia-container-cli is not used; --nv works without", "NVCCLI"),
    _refused("passphrase", "flag", "encrypted images are not supported"),
    _refused("pem-path", "text", "encrypted images are not supported", "ENCRYPTION_PEM_PATH"),
    _refused("sharens", "flag", "containers do not share namespaces", "SHARENS"),
    _refused("runscript-timeout", "text", "use: timeout 60 sifkit run ...", "RUNSCRIPT_TIMEOUT", only=("run",)),
)
"""Every option of Apptainer's ``exec``, ``run`` and ``shell``, and ours."""

JOINED = {"bind", "mount"}
"""Options to which the variables add, instead of standing in for them."""
TRUE, FALSE = {"1", "t", "T", "TRUE", "true", "True"}, {"0", "f", "F", "FALSE", "false", "False"}


def options_for(verb: str) -> tuple[RunOption, ...]:
    """Return the options of a verb."""
    return tuple(option for option in OPTIONS if not option.only or verb in option.only)


def with_variables(
    values: Mapping[str, Value], environment: Mapping[str, str], verb: str
) -> tuple[dict[str, Value], tuple[str, ...]]:
    """Add the values that the environment has for options that are not given; return them and notes.

    A flag that is False is given as ``--contain=false``. APPTAINER_X wins over SINGULARITY_X. Raises UsageError for a variable
    that is no truth value.
    """
    found = dict(values)
    notes: list[str] = []
    for option in options_for(verb):
        before = found.get(option.key)
        if (before or before is False) and option.key not in JOINED:
            continue
        texts = [(name, text) for name in option.variables if (text := _variable(name, environment, notes))]
        if not texts:
            continue
        name, text = texts[0]
        if option.kind == "flag":
            if text not in TRUE | FALSE:
                raise UsageError(f"APPTAINER_{name} is {show(text)}, which is neither true nor false", hint="set it to 1 or 0")
            found[option.key] = text in TRUE
        elif option.kind == "text":
            found[option.key] = text
        else:
            given = found.get(option.key) or ()
            assert isinstance(given, tuple)
            found[option.key] = (*given, *(text for _, text in (texts if option.key in JOINED else texts[:1])))
    return found, tuple(notes)


def _variable(name: str, environment: Mapping[str, str], notes: list[str]) -> str:
    """Return the value of APPTAINER_NAME, else of SINGULARITY_NAME, else an empty text."""
    current, old = environment.get(f"APPTAINER_{name}", ""), environment.get(f"SINGULARITY_{name}", "")
    if current and old and current != old:
        notes.append(f"SINGULARITY_{name} and APPTAINER_{name} differ; the latter is used")
    return current or old


def check_options(values: Mapping[str, Value], verb: str) -> None:
    """Raise NotYetError for an option that is refused."""
    for option in options_for(verb):
        if option.status == "refused" and values.get(option.key):
            raise NotYetError(f"{option.spelling} is not supported", hint=option.reason)


def no_effect_notes(values: Mapping[str, Value], verb: str) -> Iterator[str]:
    """Yield notes on options that have no effect."""
    for option in options_for(verb):
        if option.status == "no effect" and values.get(option.key):
            yield f"{option.spelling} has no effect: {option.reason}"
