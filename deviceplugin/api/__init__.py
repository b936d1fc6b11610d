"""The kubelet's two interfaces for plugins: messages generated from the .proto files, and the services on them.

The services are written by hand, since seven methods are less than the code that would be generated for them.
"""
