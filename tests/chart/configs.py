"""A file of the sidecar out of an object, loaded by the sidecar itself."""

import yaml

from sidecar import config


def loaded(text, tmp_path):
    """With a secret in place of those it names, which are not on this machine."""
    secret = tmp_path / "secret"
    secret.write_text("whsec_" + "A" * 32)
    secret.chmod(0o440)
    for subscriber in yaml.safe_load(text).get("subscribers") or ():
        if file := subscriber.get("secret_file"):
            text = text.replace(file, str(secret))
    path = tmp_path / "sidecar.yaml"
    path.write_text(text)
    return config.load(str(path))
