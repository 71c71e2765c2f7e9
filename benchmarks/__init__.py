"""Speed and memory beside other libraries: `python -m benchmarks`, or `make bench`.

Every contender runs in a process of its own, so that thread pools do not disturb each other; the same case and the
same arrays go to all of them, their results are compared before any clock starts, and their turns alternate.
"""
