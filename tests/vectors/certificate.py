"""A certificate as a server of ours shows it, in DER: for ``localhost``, signed by itself with ECDSA on P-256."""

from __future__ import annotations

import base64

DER = base64.b64decode(
    """
    MIIBXDCCAQGgAwIBAgIUey1WcAHd6Fe8pgPjrLzsc9mk18YwCgYIKoZIzj0EAwIwDjEMMAoGA1UEAwwDb2NtMCAXDTI3MDExNDA4
    MDAwMFoYDzIxMjcwMTE2MDgwMDAwWjAOMQwwCgYDVQQDDANvY20wWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQvDk40t9ZZXitO
    I0b4gMuk1z4ZbF9K3LKkuyas7O3fAMZCY8OO8QE6TmtwSLeG8R6quXsJL+Hr5z4gkX9MPOWwozswOTAUBgNVHREEDTALgglsb2Nh
    bGhvc3QwDAYDVR0TAQH/BAIwADATBgNVHSUEDDAKBggrBgEFBQcDATAKBggqhkjOPQQDAgNJADBGAiEAhLKqnDxqhQAJlUWrqV5L
    kE3wKDkpLbxdNNnMglQOMAgCIQDUUr2FaBx2Ha8hAfvkSMe/g+QSZZ1mzMvQtNndC/Ce0Q==
    """
)
