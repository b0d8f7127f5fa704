"""An MCP server over a broker's tools: for every host that speaks the Model Context Protocol.

    options   what a server is started with          catalogue  the tools that it offers
    token     the HTTP clients' bearer token         calls      one tools/call
    guard     who may talk to it over HTTP           server     the protocol's methods
    stdio, http  the two transports                  serving    all of it, from start to end

The server holds the agent's certificate. It decides nothing: each call goes to the broker as the agent's own.
"""
