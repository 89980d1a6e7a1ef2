"""HTTP/1.1 over blocking sockets: a server with a thread per connection, and a small client.

``stream``     a connection as bytes both ways, each of which can end on its own; plain sockets
``tls``        the same over TLS
``listeners``  where a server listens: unix, TCP, sockets handed over by the service manager
``messages``   requests and responses as handlers see them
``server``     the server
``client``     the client; imports next to nothing, since command lines wait for it

Nothing here knows Docker; the registry server stands on it too. The package itself imports
nothing, so that a client does not pay for the server.
"""
