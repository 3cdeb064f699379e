# Table 2's Conv-3 row at the paper's budget, the reduced one with three seeds, and what differences come of, on one
# GPU in processes side by side; it goes on where it was. After `. PLACE/env.sh`:
#   sh benchmarks/gpu/row.sh
# Conv-3's step in float32 is bound by the GPU's arithmetic; those in bfloat16 wait for their kernels' launches, and
# cost the others little.
run() {
    python3 -m "$@" || echo "FAILED: $*"
}
seeds() {
    for seed in 0 1 2; do
        run divtf.table2 --flagfile=flags/mnist.flags --modes="$1" --seed=$seed --run_dir=runs/mnist_seeds
    done
}
explain() {
    run benchmarks.explanations --runs=runs/table2_conv3 --surrogates="as published,2 epochs,seed 1001" --only="$1"
}
mkdir -p runs
run benchmarks.gpu.side_by_side flags/table2_conv3.flags > runs/row.log 2>&1 &
sleep 90
seeds noise > runs/noise.log 2>&1 &
(seeds base && seeds div) > runs/div.log 2>&1 &
(explain "2 epochs" && explain "as published" && explain "seed 1001") > runs/surrogates.log 2>&1 &
wait
explain "T_Base,T_Div,T_Ens,T_Ens+Div,T_Noise" > runs/explained.log 2>&1
