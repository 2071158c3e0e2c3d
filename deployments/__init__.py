"""Clipgraph's deployments: one decoder, one wrapper around 21 analyzers, one ingress. Start reading at ../graph.py."""
