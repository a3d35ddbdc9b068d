"""Certificates for tests."""

import ssl

import trustme


class Authority:
    """A CA, and files of what it issued."""

    def __init__(self, folder, name):
        self._ca = trustme.CA()
        self._folder = folder
        self._name = name
        self.file = str(folder / f"{name}.ca")
        self._ca.cert_pem.write_to_path(self.file)

    def server(self, *names, prefix="", not_after=None):
        """The section `api.tls` with a new certificate, its files written; the same files each time."""
        issued = self._ca.issue_cert(*(names or ("127.0.0.1", "localhost")), not_after=not_after)
        files = {"cert_file": f"{prefix}{self._name}.pem", "key_file": f"{prefix}{self._name}.key"}
        paths = {key: self._folder / name for key, name in files.items()}
        issued.private_key_pem.write_to_path(str(paths["key_file"]))
        paths["key_file"].chmod(0o600)
        paths["cert_file"].write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        return {key: str(path) for key, path in paths.items()}

    def client(self, name):
        """The file of a new client's certificate and key."""
        path = self._folder / f"{name}.client"
        self._ca.issue_cert(f"{name}@example.org").private_key_and_cert_chain_pem.write_to_path(str(path))
        return str(path)

    def context(self, client=None):
        """A client that trusts this CA. `client`: whose certificate it shows."""
        context = ssl.create_default_context(cafile=self.file)
        if client:
            client._ca.issue_cert("agent@example.org").configure_cert(context)
        return context
