"""What the manifest of a located grafted folder says of its base and its replicas, checked before it is used."""

from __future__ import annotations

from spgsurgeon.checkpoint import MANIFEST, naming
from spgsurgeon.loading.locating import Located


def check_manifest_of(located: Located) -> None:
    """Raise UnsafeInputError or DamagedFileError for a base or replicas that can't be; nothing if there is none."""
    if located.manifest is None or located.folder is None:
        return
    from spgsurgeon.models import check_manifest  # pydantic takes its time
    from spgsurgeon.replicas.kinds import replicas_from

    check_manifest(located.manifest.base, f"{located.folder}/{MANIFEST}")
    with naming(located.folder / MANIFEST):
        replicas_from(located.manifest.trp)
