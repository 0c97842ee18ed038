"""Who is behind an address: identities, and the book that names them."""
