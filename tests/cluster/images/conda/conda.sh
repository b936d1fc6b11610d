conda() {
    if [ "$1" = activate ]; then
        export CONDA_DEFAULT_ENV="$2" CONDA_PREFIX="/root/miniconda3/envs/$2"
        export PATH="$CONDA_PREFIX/bin:$PATH"
    else
        /root/miniconda3/bin/conda "$@"
    fi
}
