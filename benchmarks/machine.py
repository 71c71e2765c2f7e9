"""The machine and the versions a table was made with; no date, no host name."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from benchmarks.contenders import CONTENDERS
from implicit_grad._memory import physical_memory


def machine() -> dict[str, str]:
    """Return what the timings depend on, as label → text."""
    memory = physical_memory()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    versions = {name: version for contender in CONTENDERS for name, version in contender.versions.items()}
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory / 2**30:.0f} GiB" if memory else "unknown",
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "packages": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "load average at the start": f"{load:.1f}",
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor() or "unknown"
    fields: dict[str, str] = {}
    for line in cpuinfo.read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    flags = fields.get("flags", "").split()
    vectors = next((name for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags), "")
    model = f"family {fields.get('cpu family', '?')}, model {fields.get('model', '?')}"
    return ", ".join(part for part in (fields.get("model name", "unknown"), model, vectors) if part)
