"""Files that travel: tars packed and unpacked on the client's side, and what goes into them."""
