"""The OpenCL backend: `_device.py` finds a device that works, `_backend.py` trains on it with the kernels of `softmax.cl`.

``python -m skdl.opencl`` lists the devices of this machine and tries each. Needs PyOpenCL and a driver.
"""
