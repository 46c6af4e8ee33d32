// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// All of linnet that needs nothing but the standard library and Eigen. Opt-in headers beside it:
/// linnet/json.hpp (safetensors, Hugging Face, JSON lines, logs), linnet/gguf.hpp,
/// linnet/checkpoint.hpp, linnet/compression.hpp, linnet/calibration_file.hpp, linnet/low_rank.hpp,
/// linnet/cached_logits.hpp, linnet/numpy.hpp, linnet/sentencepiece.hpp and linnet/xtensor.hpp.

#include <linnet/compress/collapse.hpp>
#include <linnet/compress/quantize.hpp>
#include <linnet/compress/unshare.hpp>
#include <linnet/data/encoder_texts.hpp>
#include <linnet/distributed/costs.hpp>
#include <linnet/distributed/simulation.hpp>
#include <linnet/eval/answers.hpp>
#include <linnet/eval/classifier.hpp>
#include <linnet/eval/correlation.hpp>
#include <linnet/eval/few_shot.hpp>
#include <linnet/eval/language.hpp>
#include <linnet/eval/select_documents.hpp>
#include <linnet/eval/tasks.hpp>
#include <linnet/eval/top_logits.hpp>
#include <linnet/formats/any_model.hpp>
#include <linnet/formats/hf_names.hpp>
#include <linnet/formats/pnm.hpp>
#include <linnet/formats/rwkv_file.hpp>
#include <linnet/fwd.hpp>  // so that it stays true
#include <linnet/generate/beam_search.hpp>
#include <linnet/generate/byte_text.hpp>
#include <linnet/generate/contrast.hpp>
#include <linnet/generate/image_codec.hpp>
#include <linnet/generate/self_speculative.hpp>
#include <linnet/generate/speculative.hpp>
#include <linnet/model/contract.hpp>
#include <linnet/model/image_text.hpp>
#include <linnet/model/initialize.hpp>
#include <linnet/model/layer_runner.hpp>
#include <linnet/model/next_thought.hpp>
#include <linnet/model/profiled.hpp>
#include <linnet/nn/attention/block_mask.hpp>
#include <linnet/nn/attention/distance_bias.hpp>
#include <linnet/nn/attention/fnet.hpp>
#include <linnet/nn/attention/linear.hpp>
#include <linnet/nn/attention/linformer.hpp>
#include <linnet/nn/attention/longformer.hpp>
#include <linnet/nn/attention/lsh.hpp>
#include <linnet/nn/attention/nystrom.hpp>
#include <linnet/nn/attention/reparam_output.hpp>
#include <linnet/nn/attention/routing.hpp>
#include <linnet/nn/recurrent/mamba.hpp>
#include <linnet/text/bpe_trainer.hpp>
#include <linnet/text/chatml.hpp>
#include <linnet/text/ggml_tokenizer.hpp>
#include <linnet/text/token_bytes.hpp>
#include <linnet/text/vocab_bpe.hpp>
#include <linnet/training.hpp>
