"""What tells samples and networks from others."""

from hashlib import sha256

from whit.data import Samples
from whit.network import Network

__all__ = ["digest_of_network", "digest_of_samples"]


def digest_of_network(network: Network) -> str:
    """Of the names and values of all parameters and buffers."""
    digest = sha256()
    for name, values in sorted(network.values().items()):
        digest.update(f"{name} {values.dtype} {values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()[:16]


def digest_of_samples(samples: Samples) -> str:
    """Of all values, and of how images become what networks read."""
    digest = sha256(repr(samples.images).encode())
    for array in (*samples.inputs, samples.targets):
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]
