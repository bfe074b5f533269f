"""AttentionClustering of 10 000 embeddings in 384 dimensions beside HDBSCAN: seconds, peak memory, labels.

Embeddings: 40 directions drawn at random, clusters of sizes 1/1, 1/2, 1/3, ... round them, each token
at cosine 0.45 to 0.95 of its direction; float32. Every program runs in a process of its own.
"""

from benchmarks.timing import machine, peak_memory

N, D, CLUSTERS = 10_000, 384, 40

DATA = f"""
import json, time
import numpy as np
from sklearn.metrics import adjusted_rand_score
rng = np.random.default_rng(0)
centres = rng.standard_normal(({CLUSTERS}, {D}))
centres /= np.linalg.norm(centres, axis=1, keepdims=True)
share = 1 / np.arange(1, {CLUSTERS} + 1)
classes = rng.choice({CLUSTERS}, {N}, p=share / share.sum())
noise = rng.standard_normal(({N}, {D}))
noise -= (noise * centres[classes]).sum(axis=1, keepdims=True) * centres[classes]
noise /= np.linalg.norm(noise, axis=1, keepdims=True)
cosine = rng.uniform(0.45, 0.95, ({N}, 1))
x = (cosine * centres[classes] + np.sqrt(1 - cosine**2) * noise).astype(np.float32)
"""

FIT = """
started = time.perf_counter()
labels = estimator.fit_predict(x)
seconds = time.perf_counter() - started
found = len(np.unique(labels[labels >= 0]))
print(json.dumps({"fit_seconds": seconds, "ari": adjusted_rand_score(classes, labels),
                  "clusters": found, "noise": float(np.mean(labels < 0))}))
"""

ESTIMATORS = {
    "attnflow": "import attnflow as af\nestimator = af.AttentionClustering()",
    "attnflow, k": f"import attnflow as af\nestimator = af.AttentionClustering(n_clusters={CLUSTERS})",
    "hdbscan": "from sklearn.cluster import HDBSCAN\nestimator = HDBSCAN(copy=True)",
    "kmeans, k": f"from sklearn.cluster import KMeans\nestimator = KMeans({CLUSTERS}, n_init=10, random_state=0)",
}


def main() -> dict:
    """Numbers of every program, and the time of HDBSCAN over ours."""
    rows = {}
    for name, estimator in ESTIMATORS.items():
        row = rows[name] = peak_memory(DATA + estimator + FIT)
        print(
            f"{N} x {D} float32  {name:12} {row['fit_seconds']:7.1f} s  peak {row['peak_gb']:.2f} GB  "
            f"ARI {row['ari']:.3f}  {row['clusters']} clusters  {row['noise']:.0%} noise",
            flush=True,
        )
    ratio = rows["hdbscan"]["fit_seconds"] / rows["attnflow"]["fit_seconds"]
    print(f"HDBSCAN / attnflow: x{ratio:.2f}, compilation included")
    setting = {"n": N, "d": D, "clusters": CLUSTERS, "dtype": "float32"}
    return {"machine": machine(), "setting": setting, "programs": rows, "ratio_to_hdbscan": ratio}
