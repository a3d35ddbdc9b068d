"""Pods as objects: where the sidecar is in them, and whether they need rights."""


def pod(objects):
    """The template of the workload's pod: its metadata and spec."""
    (workload,) = [each for each in objects if each["kind"] in ("StatefulSet", "Deployment")]
    return workload["spec"]["template"]


def sidecar(objects):
    """Its container, and the list it is in."""
    spec = pod(objects)["spec"]
    found = [
        (each, place) for place in ("initContainers", "containers") for each in spec.get(place, ()) if "fsm" in each["name"]
    ]
    (one,) = found
    return one


def restricted(spec):
    """What Pod Security "restricted" would refuse, in words."""
    whole = spec.get("securityContext", {})
    for each in [*spec.get("initContainers", ()), *spec["containers"]]:
        own = {**whole, **each.get("securityContext", {})}
        if own.get("allowPrivilegeEscalation") is not False:
            yield f"{each['name']}: privileges can grow"
        if own.get("capabilities", {}).get("drop") != ["ALL"]:
            yield f"{each['name']}: has capabilities"
        if own.get("runAsNonRoot") is not True or own.get("runAsUser") == 0:
            yield f"{each['name']}: may be root"
        if own.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{each['name']}: any system call"
    for volume in spec.get("volumes", ()):
        if not {"configMap", "secret", "emptyDir", "persistentVolumeClaim"} & set(volume):
            yield f"{volume['name']}: a volume of the host"
