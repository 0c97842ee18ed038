"""Certificates of the cluster: an authority, those that it gives to nodes, and the files that hold them.

    authority.py  the CA's own directory: keys, what was issued; signs    (who holds the key)
    signer.py     follows requests in the shared state, and answers them  (operator, sandbox)
    state.py      what stands in the shared state
    keeper.py     asks for the node's certificate, and keeps its files    (agent)
    files.py      reads certificates, and says when they have changed     (every TLS server and client)
    examine.py    what is wrong with files: object, field, reason, remedy (`axo doctor`)

Only those who make or examine certificates need the `cryptography` library, not who merely uses them.
"""
