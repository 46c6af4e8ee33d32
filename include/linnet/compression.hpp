// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Opt-in: calibration and the methods that round with it, or prepare for it. Takes Eigen's
/// Cholesky decomposition.

#include <linnet/adapt/lora_importance.hpp>
#include <linnet/compress/allocate_storages.hpp>
#include <linnet/compress/awq.hpp>
#include <linnet/compress/block_influence.hpp>
#include <linnet/compress/calibrate_keys.hpp>
#include <linnet/compress/clip_search.hpp>
#include <linnet/compress/contextual.hpp>
#include <linnet/compress/contextual_heads.hpp>
#include <linnet/compress/duplicates.hpp>
#include <linnet/compress/fold_norms.hpp>
#include <linnet/compress/gptq.hpp>
#include <linnet/compress/hessian.hpp>
#include <linnet/compress/hqq.hpp>
#include <linnet/compress/narrow.hpp>
#include <linnet/compress/narrow_in_rounds.hpp>
#include <linnet/compress/owq.hpp>
#include <linnet/compress/prune.hpp>
#include <linnet/compress/prune_blocks.hpp>
#include <linnet/compress/quantize_by.hpp>
#include <linnet/compress/refit.hpp>
#include <linnet/compress/relufy.hpp>
#include <linnet/compress/rewind.hpp>
#include <linnet/compress/rotate.hpp>
#include <linnet/compress/rotate_online.hpp>
#include <linnet/compress/running_importance.hpp>
#include <linnet/compress/sensitivities.hpp>
#include <linnet/compress/sequential.hpp>
#include <linnet/compress/shape_search.hpp>
#include <linnet/compress/smooth.hpp>
#include <linnet/compress/sparsegpt.hpp>
#include <linnet/compress/spinquant.hpp>
#include <linnet/compress/spqr.hpp>
#include <linnet/compress/steps.hpp>
#include <linnet/distill/recovery.hpp>
#include <linnet/train/gradual_pruning.hpp>
#include <linnet/train/omniquant.hpp>
#include <linnet/train/zeroquant.hpp>
