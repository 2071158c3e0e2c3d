"""The analyzers. One file each; `deployments.analyzer.discover()` finds them by file name."""
