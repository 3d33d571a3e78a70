"""TWBA-Nets / BWBA-Nets: what TensorFlow's, PyTorch's and the chip's side share. No framework is imported here.

architecture  the network as a table                  recipe            how it is trained
datasets      CIFAR-10, digits                        quantisers        the weights'
model         opening a trained one                   places            where the released ones are
run_folder    a run's files                           training_run      how both trainers begin, resume and end
npz, card     model.npz, training.npz, cards          journal           log, learning curve
provenance    which epochs were trained where
arrays        named arrays, checked                   files             written whole or not at all
command_line  the scripts' flags                      interrupts        one line for Ctrl-C and mistakes
memory        glibc's allocator                       spike_statistics  the counted maps' figures
progress      bars on terminals, lines in logs        streams           stdout, stderr, warnings
summaries     TensorBoard's                           drawing           Matplotlib, under our own settings
"""
__version__ = "1.0.0"
