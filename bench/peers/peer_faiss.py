"""faiss: HNSW over f32 (`faiss`) and over eight-bit codes (`faiss-sq8`)."""

import os

import faiss


def version(_name):
    return faiss.__version__


def check(name, _metric):
    if name not in ("faiss", "faiss-sq8"):
        raise ValueError(f"{name} is not known")


def builder(name, vectors, request, threads, _place):
    def build():
        faiss.omp_set_num_threads(threads)
        dimension, m = vectors.shape[1], request["m"]
        metric = faiss.METRIC_L2 if request["metric"] == "l2" else faiss.METRIC_INNER_PRODUCT
        if name == "faiss":
            index = faiss.IndexHNSWFlat(dimension, m, metric)
        else:
            index = faiss.IndexHNSWSQ(dimension, faiss.ScalarQuantizer.QT_8bit, m, metric)
        index.hnsw.efConstruction = request["ef_construction"]
        index.train(vectors)
        index.add(vectors)
        return System(index, 2 * m)

    return build


class System:
    def __init__(self, index, links):
        self.index = index
        self.links = links

    def set(self, ef, threads):
        self.index.hnsw.efSearch = ef
        faiss.omp_set_num_threads(threads)

    def search(self, queries, k):
        return self.index.search(queries, k)[1]

    def save(self, path):
        faiss.write_index(self.index, path)
        return os.path.getsize(path)

    def degree(self, _path):
        """Mean number of links on level 0, which begins each row's part of the neighbours."""
        neighbours = faiss.vector_to_array(self.index.hnsw.neighbors)
        starts = faiss.vector_to_array(self.index.hnsw.offsets)[:-1].astype("int64")
        linked = sum(int((neighbours[starts + at] >= 0).sum()) for at in range(self.links))
        return linked / len(starts)
