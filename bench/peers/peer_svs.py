"""SVS: Vamana over f32 (`svs`), LVQ codes of 8 or 4 and 8 bits (`svs-lvq8`, `svs-lvq4x8`), and LeanVec of half the
dimensions with LVQ codes (`svs-leanvec8x8`, `svs-leanvec4x8`)."""

import importlib.metadata
import os

import svs

LVQ = {"svs-lvq8": (8, 0), "svs-lvq4x8": (4, 8)}
LEANVEC = {"svs-leanvec8x8": svs.LeanVecKind.lvq8, "svs-leanvec4x8": svs.LeanVecKind.lvq4}


def version(_name):
    return importlib.metadata.version("scalable-vs")


def check(name, _metric):
    if name != "svs" and name not in LVQ and name not in LEANVEC:
        raise ValueError(f"{name} is not known")


def builder(name, vectors, request, threads, place):
    inner = request["metric"] != "l2"
    parameters = svs.VamanaBuildParameters(
        alpha=0.95 if inner else 1.2, graph_max_degree=2 * request["m"], window_size=request["ef_construction"],
    )
    distance = svs.DistanceType.MIP if inner else svs.DistanceType.L2
    dimension = vectors.shape[1]
    data = vectors
    if name != "svs":
        # the loaders that compress read files
        file = os.path.join(place, "vectors.fvecs")
        svs.write_vecs(vectors, file)
        loader = svs.VectorDataLoader(file, svs.DataType.float32, dims=dimension)
        if name in LVQ:
            primary, residual = LVQ[name]
            data = svs.LVQLoader(loader, primary=primary, residual=residual, padding=32)
        else:
            data = svs.LeanVecLoader(
                loader, leanvec_dims=dimension // 2, primary_kind=LEANVEC[name],
                secondary_kind=svs.LeanVecKind.lvq8,
            )

    def build():
        return System(svs.Vamana.build(parameters, data, distance, num_threads=threads))

    return build


class System:
    def __init__(self, index):
        self.index = index

    def set(self, ef, threads):
        self.index.search_window_size = ef
        self.index.num_threads = threads

    def search(self, queries, k):
        return self.index.search(queries, k)[0]

    def save(self, path):
        places = [os.path.join(path, part) for part in ("config", "graph", "data")]
        os.mkdir(path)
        self.index.save(*places)
        files = (os.path.join(at, name) for at, _, names in os.walk(path) for name in names)
        return sum(os.path.getsize(file) for file in files)

    def degree(self, _path):
        return None
