# Table 2's Conv-3 row at the paper's budget on one GPU, or what its differences come of and the reduced budget with
# three seeds; either goes on where it was. After `. PLACE/env.sh`:
#   sh benchmarks/gpu/row.sh row
#   sh benchmarks/gpu/row.sh rest; sh benchmarks/gpu/row.sh explained
# Conv-3's step in float32 is bound by the GPU's arithmetic, so more than three processes gain nothing; T_Ens+Div,
# with most steps, is to have its share from the beginning.
run() {
    python3 -m "$@" || echo "FAILED: $*"
}
row() {
    run divtf.table2 --flagfile=flags/table2_conv3.flags --modes="$1"
}
seeds() {
    for seed in 0 1 2; do
        run divtf.table2 --flagfile=flags/mnist_seeds.flags --modes="$1" --seed=$seed
    done
}
explain() {
    run benchmarks.explanations --runs=runs/table2_conv3 --surrogates="as published,2 epochs,seed 1001" --only="$1"
}
mkdir -p runs
case "$1" in
row)
    row ens_div > runs/ens_div.log 2>&1 &
    row div > runs/div.log 2>&1 &
    row base,ens,noise > runs/others.log 2>&1 &
    ;;
rest)
    explain "as published" > runs/surrogates.log 2>&1 &
    (seeds noise && seeds base && seeds div) > runs/seeds.log 2>&1 &
    ;;
explained)
    explain "T_Base,T_Div,T_Ens,T_Ens+Div,T_Noise" > runs/explained.log 2>&1 &
    ;;
esac
wait
