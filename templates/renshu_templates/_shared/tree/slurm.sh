#!/bin/bash
# From the project's folder: sbatch deploy/slurm.sh [flags of the training]
#SBATCH --job-name={{ cookiecutter.__slug }}
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-task=1
#SBATCH --mem=32G
#SBATCH --time=12:00:00
#SBATCH --signal=TERM@300
#SBATCH --output=slurm-%j.out
set -euo pipefail

# Five minutes before the time is over the training is told, saves its state and ends. The same
# command goes on from there: sbatch --export=ALL,RUN=<name of the run> deploy/slurm.sh
RUN="${RUN:-slurm-$SLURM_JOB_ID}"
srun python -m {{ cookiecutter.__package }}.train --trainer.run "$RUN" --ckpt_path last "$@"
