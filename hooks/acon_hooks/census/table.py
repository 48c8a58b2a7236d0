"""The table of operators: in which of their arguments they are linear, and what they are else.

Names are those of `torch.ops.aten`, without the underscore of in-place forms and without the
``_foreach_`` of lists; operators of other libraries have theirs in front (``torchvision.nms``).
Linear means linear or affine in the arguments that depend on the input, the others being constant.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

#: Stands for every argument.
EVERY = ("*",)


@dataclass(frozen=True)
class Rule:
    """When an operator is linear in the arguments that depend on the input."""

    # Groups of arguments that are multiplied: not linear where those of two groups depend.
    factors: tuple[tuple[str, ...], ...] = ()
    # Arguments in which the operator is not linear; `EVERY` for all.
    fixed: tuple[str, ...] = ()
    # What the operator is where one of `fixed` depends.
    reason: str = ""
    # Arguments whose values do not count: only their shapes, or what is overwritten.
    unread: tuple[str, ...] = ()


#: Linear in all arguments together.
_LINEAR = """
add sub rsub neg negative positive subtract mean sum cumsum trace sum_to_size
cat concat stack _chunk_cat hstack vstack dstack column_stack block_diag
view _unsafe_view reshape _reshape_alias _lazy_clone view_as reshape_as expand expand_as
broadcast_to permute transpose t swapaxes movedim numpy_T mT mH adjoint squeeze unsqueeze flatten
unflatten slice slice_inverse select narrow split split_with_sizes unsafe_split
unsafe_split_with_sizes chunk unsafe_chunk tensor_split unbind unfold as_strided diagonal diag
diag_embed alias detach lift lift_fresh clone contiguous _to_copy to _pin_memory pin_memory
_conj _neg_view resolve_conj resolve_neg conj conj_physical _conj_physical real imag complex
view_as_real view_as_complex values _values data set repeat tile flip fliplr flipud roll rot90
tril triu select_scatter slice_scatter diagonal_scatter as_strided_scatter
constant_pad_nd _pad_circular reflection_pad1d reflection_pad2d reflection_pad3d
replication_pad1d replication_pad2d replication_pad3d pad im2col col2im pixel_shuffle
pixel_unshuffle channel_shuffle native_channel_shuffle
avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
_adaptive_avg_pool2d _adaptive_avg_pool3d mkldnn_adaptive_avg_pool2d
upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d
_upsample_nearest_exact2d _upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d
upsample_trilinear3d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa
_upsample_lanczos2d_aa affine_grid_generator native_dropout
_fft_r2c _fft_c2c _fft_c2r to_dense _to_dense to_mkldnn to_padded_tensor
_nested_view_from_buffer _nested_view_from_jagged _nested_get_values
_nested_from_padded _nested_tensor_from_mask _nested_tensor_from_mask_left_aligned
_nested_from_padded_tensor _jagged_to_padded_dense_forward _padded_dense_to_jagged_forward
"""

#: Multiply arguments with each other, in which they are linear one at a time.
_PRODUCTS = {
    "mul multiply mv dot vdot outer ger kron inner linalg_cross cross matmul linalg_matmul": (
        "self other,vec,vec2,tensor"
    ),
    "mm bmm smm _int_mm _grouped_mm": "self mat2",
    "linalg_vecdot": "x y",
    "addmm baddbmm addbmm sspaddmm hspmm _sparse_addmm": "mat1,batch1 mat2,batch2",
    "_sparse_mm": "sparse dense",
    "addmv": "mat vec",
    "addr": "vec1 vec2",
    "addcmul": "tensor1 tensor2",
    "lerp": "self,end,tensors1 weight,weights",
    "convolution _convolution conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d "
    "conv_transpose3d conv_depthwise3d _conv_depthwise2d _slow_conv2d_forward thnn_conv2d "
    "slow_conv3d slow_conv3d_forward slow_conv_transpose2d slow_conv_transpose3d "
    "slow_conv_dilated2d slow_conv_dilated3d convolution_overrideable cudnn_convolution "
    "cudnn_convolution_transpose mkldnn_convolution miopen_convolution "
    "miopen_convolution_transpose miopen_depthwise_convolution _nnpack_spatial_convolution "
    "linear mkldnn_linear": "input,self weight",
    "_trilinear": "i1 i2 i3",
    "bilinear": "input1 input2 weight",
}

#: Not linear in some arguments: {operators: (these arguments, what it is where they depend)}.
_FIXED = {
    "div divide true_divide": ("other rounding_mode", "division by data"),
    "addcdiv": ("tensor2", "division by data"),
    "linalg_solve linalg_solve_ex _linalg_solve_ex linalg_solve_triangular triangular_solve "
    "linalg_lu_solve lu_solve cholesky_solve": ("A LU pivots self input2", "division by data"),
    "where": ("condition", "choice by data"),
    "masked_fill masked_scatter masked_select": ("mask", "choice by data"),
    "index _unsafe_index _unsafe_masked_index index_put _unsafe_index_put _index_put_impl "
    "_unsafe_masked_index_put_accumulate": ("indices mask", "choice by data"),
    "index_select index_add index_copy index_fill gather scatter scatter_add take put "
    "take_along_dim": ("index indices", "choice by data"),
    "repeat_interleave": ("repeats", "choice by data"),
    "grid_sampler grid_sampler_2d grid_sampler_3d _grid_sampler_2d_cpu_fallback": (
        "grid",
        "choice by data",
    ),
    "torchvision.roi_align torchvision.ps_roi_align": ("rois", "choice by data"),
    "torchvision.deform_conv2d": ("offset", "choice by data"),
    "max_unpool2d max_unpool3d": ("indices", "choice by data"),
}

#: Linear in nothing: {what they are: operators}.
_NONLINEAR = {
    "activation": """
relu relu6 threshold hardtanh leaky_relu rrelu rrelu_with_noise prelu _prelu_kernel elu celu selu
gelu silu mish softplus hardswish hardsigmoid sigmoid log_sigmoid log_sigmoid_forward tanh
softshrink hardshrink clamp clamp_min clamp_max clip abs glu logit
special_expit cudnn_convolution_relu cudnn_convolution_add_relu _add_relu _addmm_activation""",
    "softmax": """
_softmax _log_softmax softmax log_softmax _safe_softmax _masked_softmax logsumexp
_logcumsumexp logcumsumexp logaddexp logaddexp2""",
    "attention": """
scaled_dot_product_attention _scaled_dot_product_attention_math
_scaled_dot_product_flash_attention _scaled_dot_product_flash_attention_for_cpu
_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention
_scaled_dot_product_fused_attention_overrideable _flash_attention_forward
_efficient_attention_forward _cudnn_attention_forward _native_multi_head_attention
_transformer_encoder_layer_fwd _triton_scaled_dot_attention _triton_multi_head_attention
higher_order.flex_attention""",
    "maximum": """
max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices
max_pool3d_with_indices adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
mkldnn_max_pool2d mkldnn_max_pool3d quantized_max_pool2d fractional_max_pool2d
fractional_max_pool3d torchvision.roi_pool torchvision.ps_roi_pool max min amax amin aminmax
_aminmax maximum minimum fmax fmin cummax cummin _cummax_helper _cummin_helper""",
    "normalisation": """
native_layer_norm layer_norm native_group_norm group_norm instance_norm rms_norm _fused_rms_norm
linalg_vector_norm linalg_matrix_norm norm native_norm frobenius_norm renorm
_weight_norm _weight_norm_interface batch_norm_stats var var_mean std std_mean
cosine_similarity _euclidean_dist cdist _cdist_forward pdist _pdist_forward dist""",
    "recurrent cell": """
lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell
_thnn_fused_lstm_cell _thnn_fused_gru_cell mkldnn_rnn_layer _cudnn_rnn miopen_rnn _lstm_mps""",
    "order": """
sort argsort msort topk kthvalue median nanmedian mode argmax argmin quantile nanquantile
_unique _unique2 unique_dim unique_consecutive unique_dim_consecutive searchsorted bucketize
nonzero nonzero_static argwhere count_nonzero histc histogram bincount torchvision.nms""",
    "comparison": """
eq ne lt le gt ge equal isnan isinf isfinite isposinf isneginf isclose allclose isin
logical_and logical_or logical_xor logical_not bitwise_and bitwise_or bitwise_xor bitwise_not
__and__ __or__ __xor__ __lshift__ __rshift__ bitwise_left_shift bitwise_right_shift all any
_is_all_true _is_any_true is_nonzero sign sgn signbit heaviside copysign""",
    "rounding": "floor ceil round trunc fix frac fmod remainder floor_divide nan_to_num",
    "function": """
exp exp2 expm1 log log2 log10 log1p sqrt rsqrt square pow float_power reciprocal
sin cos tan asin acos atan atan2 sinh cosh asinh acosh atanh sinc erf erfc erfinv lgamma digamma
polygamma i0 igamma igammac xlogy hypot angle polar prod cumprod ldexp nextafter
special_xlog1py special_i0e special_i1 special_i1e special_entr special_ndtri special_erfcx
special_log_ndtr special_bessel_j0 special_bessel_j1 linalg_inv linalg_inv_ex linalg_det
_linalg_det slogdet linalg_slogdet _linalg_slogdet linalg_svd _linalg_svd linalg_eigh
_linalg_eigh linalg_eig linalg_eigvals _linalg_eigvals linalg_qr linalg_cholesky
linalg_cholesky_ex linalg_lu linalg_lu_factor linalg_lu_factor_ex linalg_matrix_exp
linalg_pinv matrix_exp linalg_matrix_power matrix_power""",
    "random draw": "bernoulli multinomial poisson binomial normal _standard_gamma",
    "loss": """
mse_loss l1_loss smooth_l1_loss huber_loss binary_cross_entropy binary_cross_entropy_with_logits
nll_loss nll_loss_forward nll_loss2d_forward cross_entropy_loss kl_div _ctc_loss ctc_loss""",
}

#: Depend on no value of the named arguments, only on shapes, or overwrite them.
_UNREAD = {
    "empty_like zeros_like ones_like rand_like randn_like randint_like full_like new_empty "
    "new_empty_strided new_zeros new_ones new_full zero uniform random exponential "
    "cauchy geometric log_normal resize resize_as size stride numel sym_size sym_stride sym_numel "
    "sym_storage_offset is_same_size is_pinned record_stream _assert_async "
    "_assert_scalar _assert_tensor_metadata _shape_as_tensor _nested_tensor_size "
    "_nested_tensor_strides _nested_tensor_storage_offsets _fused_sdp_choice "
    "is_coalesced dense_dim sparse_dim _nnz prim.device": "*",
    "fill copy": "self",
}

#: A batch normalisation with the statistics of its training; that of the batch is not linear.
_BATCH_NORMS = """
native_batch_norm batch_norm cudnn_batch_norm miopen_batch_norm _native_batch_norm_legit
_native_batch_norm_legit_no_training _batch_norm_no_update _batch_norm_with_update
_batch_norm_impl_index batch_norm_elemt
"""


def _rules() -> Iterator[tuple[str, Rule]]:
    """Yield every operator with its rule."""
    for name in _LINEAR.split():
        yield name, Rule()
    for names, arguments in _PRODUCTS.items():
        groups = tuple(tuple(group.split(",")) for group in arguments.split())
        for name in names.split():
            yield name, Rule(factors=groups)
    for names, (arguments, reason) in _FIXED.items():
        for name in names.split():
            yield name, Rule(fixed=tuple(arguments.split()), reason=reason)
    for reason, names in _NONLINEAR.items():
        for name in names.split():
            yield name, Rule(fixed=EVERY, reason=reason)
    for names, arguments in _UNREAD.items():
        for name in names.split():
            yield name, Rule(unread=EVERY if arguments == "*" else tuple(arguments.split()))
    for name in _BATCH_NORMS.split():
        factors = (("input", "running_mean", "mean", "bias"), ("weight",))
        yield name, Rule(factors, ("running_var", "invstd"), "normalisation")
    yield "embedding", Rule((("weight",), ("indices",)))
    yield "_embedding_bag", Rule((("weight",), ("indices",)))


#: Operator -> rule.
OPERATORS: Mapping[str, Rule] = dict(_rules())
