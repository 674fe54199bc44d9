"""hnswlib: HNSW over f32."""

import importlib.metadata
import os
import struct

import hnswlib
import numpy

# six numbers of eight bytes, two of four, five of eight
HEADER = 96


def version(_name):
    return importlib.metadata.version("hnswlib")


def check(name, _metric):
    if name != "hnswlib":
        raise ValueError(f"{name} is not known")


def builder(_name, vectors, request, threads, _place):
    def build():
        rows, dimension = vectors.shape
        index = hnswlib.Index(space="l2" if request["metric"] == "l2" else "ip", dim=dimension)
        index.init_index(
            max_elements=rows, M=request["m"], ef_construction=request["ef_construction"],
            random_seed=request["seed"],
        )
        index.set_num_threads(threads)
        index.add_items(vectors, num_threads=threads)
        return System(index)

    return build


class System:
    def __init__(self, index):
        self.index = index

    def set(self, ef, threads):
        self.index.set_ef(ef)
        self.index.set_num_threads(threads)

    def search(self, queries, k):
        return self.index.knn_query(queries, k=k)[0]

    def save(self, path):
        self.index.save_index(path)
        return os.path.getsize(path)

    def degree(self, path):
        """Mean number of links on level 0, which begins each element of the saved file."""
        with open(path, "rb") as file:
            _, _, rows, size = struct.unpack("<4Q", file.read(32))
        elements = numpy.memmap(path, dtype=numpy.uint8, mode="r", offset=HEADER)[: rows * size]
        return float(elements.reshape(rows, size)[:, :2].copy().view(numpy.uint16).mean())
