"""The papers that the activations come from."""

from acon_analysis.family._activation import Source

ACON = Source(
    "Ma, Zhang, Liu, Sun: Activate or Not: Learning Customized Activation, CVPR 2021",
    doi="10.1109/CVPR46437.2021.00794",
    arxiv="2009.04759",
)
BACKPROPAGATION = Source(
    "Rumelhart, Hinton, Williams: Learning representations by back-propagating errors, Nature 1986",
    doi="10.1038/323533a0",
)
CONVOLUTIONAL_DBN = Source(
    "Krizhevsky: Convolutional Deep Belief Networks on CIFAR-10, 2010",
    url="https://www.cs.toronto.edu/~kriz/conv-cifar10-aug2010.pdf",
)
EFFICIENT_BACKPROP = Source(
    "LeCun, Bottou, Orr, Müller: Efficient BackProp, Neural Networks: Tricks of the Trade 1998",
    doi="10.1007/3-540-49430-8_2",
)
ELU = Source(
    "Clevert, Unterthiner, Hochreiter: Fast and Accurate Deep Network Learning by Exponential "
    "Linear Units, ICLR 2016",
    arxiv="1511.07289",
)
FRELU = Source(
    "Ma, Zhang, Sun: Funnel Activation for Visual Recognition, ECCV 2020", arxiv="2007.11824"
)
GELU = Source("Hendrycks, Gimpel: Gaussian Error Linear Units (GELUs), 2016", arxiv="1606.08415")
LEAKY_RELU = Source(
    "Maas, Hannun, Ng: Rectifier Nonlinearities Improve Neural Network Acoustic Models, ICML 2013",
    url="https://ai.stanford.edu/~amaas/papers/relu_hybrid_icml2013_final.pdf",
)
MAXOUT = Source(
    "Goodfellow, Warde-Farley, Mirza, Courville, Bengio: Maxout Networks, ICML 2013",
    arxiv="1302.4389",
)
MISH = Source(
    "Misra: Mish: A Self Regularized Non-Monotonic Activation Function, 2019", arxiv="1908.08681"
)
MOBILENET_V3 = Source(
    "Howard et al.: Searching for MobileNetV3, ICCV 2019",
    doi="10.1109/ICCV.2019.00140",
    arxiv="1905.02244",
)
NLP_FROM_SCRATCH = Source(
    "Collobert et al.: Natural Language Processing (Almost) from Scratch, JMLR 2011",
    arxiv="1103.0398",
)
PRELU = Source(
    "He, Zhang, Ren, Sun: Delving Deep into Rectifiers, ICCV 2015",
    doi="10.1109/ICCV.2015.123",
    arxiv="1502.01852",
)
RELU = Source(
    "Nair, Hinton: Rectified Linear Units Improve Restricted Boltzmann Machines, ICML 2010",
    url="https://www.cs.toronto.edu/~hinton/absps/reluICML.pdf",
)
RRELU = Source(
    "Xu, Wang, Chen, Li: Empirical Evaluation of Rectified Activations in Convolutional Network, "
    "2015",
    arxiv="1505.00853",
)
SECOND_ORDER = Source(
    "Dugas, Bengio, Bélisle, Nadeau, Garcia: Incorporating Second-Order Functional Knowledge for "
    "Better Option Pricing, NIPS 2000",
    url="https://papers.nips.cc/paper/1920-incorporating-second-order-functional-knowledge-for-"
    "better-option-pricing",
)
SELU = Source(
    "Klambauer, Unterthiner, Mayr, Hochreiter: Self-Normalizing Neural Networks, NIPS 2017",
    arxiv="1706.02515",
)
SWISH = Source(
    "Ramachandran, Zoph, Le: Searching for Activation Functions, 2017 (beta = 1 is the SiLU of "
    "Elfwing, Uchibe, Doya, Neural Networks 2018)",
    arxiv="1710.05941",
    url="https://doi.org/10.1016/j.neunet.2017.12.012",
)
