# Puts the pieces of pack.py together, and shows that TensorFlow sees the GPU. This checkout's commands run after
# `. PLACE/env.sh`.
#   sh benchmarks/gpu/unpack.sh DIRECTORY_OF_THE_PIECES PLACE
set -e
checkout=$(cd "$(dirname "$0")/../.." && pwd)
pieces=$(cd "$1" && pwd)
mkdir -p "$2" && cd "$2"
place=$(pwd)
cat "$pieces"/part* | xz -d -T0 | tar xf -
# TensorFlow asks for CUDA 12's names. Those of CUDA 13 do: cuDNN, cuBLAS and cuFFT have kept what it calls.
python3 - > found <<'P'
import glob, site, sys
for place in [*site.getsitepackages(), *sys.path]:
    print(*glob.glob(f"{place}/nvidia/**/*.so.*", recursive=True), sep="\n")
P
link() {
    library=$(grep -m1 -E "/$1\.so\.[0-9]+$" found) && ln -sf "$library" "libraries/$2"
}
link libcublas libcublas.so.12
link libcublasLt libcublasLt.so.12
link libcufft libcufft.so.11
link libcusolver libcusolver.so.11
link libcusparse libcusparse.so.12
link libcupti libcupti.so.12
link libnvJitLink libnvJitLink.so.12
link libcudnn libcudnn.so.9
link libnccl libnccl.so.2
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$checkout/divtf/__init__.py")
mkdir -p "site/divtf-$version.dist-info"
printf 'Metadata-Version: 2.1\nName: divtf\nVersion: %s\n' "$version" > "site/divtf-$version.dist-info/METADATA"
cat > env.sh <<P
export LD_LIBRARY_PATH=$place/libraries:$(sed 's,/[^/]*$,,' found | sort -u | tr '\n' ':')
export PYTHONPATH=$place/site:$checkout TFDS_DATA_DIR=$place/data
export TF_FORCE_GPU_ALLOW_GROWTH=true NVIDIA_TF32_OVERRIDE=0  # float32 is float32
cd $checkout
P
. ./env.sh
python3 -c "
import tensorflow as tf
print(tf.config.list_physical_devices('GPU'))
x, kernel = tf.random.stateless_normal([8, 28, 28, 3], [1, 2]), tf.random.stateless_normal([3, 3, 3, 16], [3, 4])
on_gpu = tf.nn.conv2d(x, kernel, 1, 'SAME')
with tf.device('CPU'):
    print(on_gpu.device, float(tf.reduce_max(abs(on_gpu - tf.nn.conv2d(tf.identity(x), tf.identity(kernel), 1, 'SAME')))))
"
