"""TWBA-Nets / BWBA-Nets: what TensorFlow's, PyTorch's and the chip's side share. No framework is imported here.

architecture  the network as a table                  recipe            how it is trained
datasets      CIFAR-10, digits                        journal           log, learning curve
npz, card     model.npz, training.npz, cards          spike_statistics  the counted maps' figures
arrays        named arrays, checked                   files             written whole or not at all
run_folder    a run's files, its newest checkpoint    training_run      how both trainers begin and go on
model         opening a trained model                 command_line      the scripts' flags
interrupts    one line for Ctrl-C and mistakes        memory            glibc's allocator
"""
