"""Meta-gradients of other libraries under `verify`: `python -m benchmarks.peers`, or `make peers`.

One module for each library writes the meta-gradient as its users do. A recipe has knobs: settings that its library or
its examples leave loose, each with a strict value. A run that fails is repeated with all knobs strict, and then with
one knob loose at a time: what is to blame is measured.
"""
