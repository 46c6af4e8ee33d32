// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The part of linnet that a training program needs beside linnet/inference.hpp: data, optimizers,
/// trainers, distillation and the gradient checker, without JSON and checkpoints.

#include <linnet/adapt/adapt.hpp>
#include <linnet/adapt/adapt_virtual.hpp>
#include <linnet/adapt/bottleneck.hpp>
#include <linnet/adapt/dynamic_lora.hpp>
#include <linnet/adapt/llama_adapter.hpp>
#include <linnet/data/curriculum.hpp>
#include <linnet/data/denoising_stream.hpp>
#include <linnet/data/glue.hpp>
#include <linnet/data/instruction_format.hpp>
#include <linnet/data/instruction_stream.hpp>
#include <linnet/data/masking_stream.hpp>
#include <linnet/data/packed_stream.hpp>
#include <linnet/data/pause.hpp>
#include <linnet/data/window_stream.hpp>
#include <linnet/distill/attention_distillation.hpp>
#include <linnet/distill/distilbert.hpp>
#include <linnet/distill/distillation.hpp>
#include <linnet/distill/filter_probe.hpp>
#include <linnet/distill/fuse_weights.hpp>
#include <linnet/distill/generated_texts.hpp>
#include <linnet/distill/layer_distillation.hpp>
#include <linnet/distill/minillm.hpp>
#include <linnet/distill/on_policy.hpp>
#include <linnet/distill/relation_distillation.hpp>
#include <linnet/distill/spin.hpp>
#include <linnet/distill/token_adaptive.hpp>
#include <linnet/distill/top_logits_objective.hpp>
#include <linnet/distill/uld.hpp>
#include <linnet/eval/evaluator.hpp>
#include <linnet/file/corpus.hpp>
#include <linnet/inference.hpp>
#include <linnet/model/initialize.hpp>
#include <linnet/train/adafactor.hpp>
#include <linnet/train/bf16_rounded.hpp>
#include <linnet/train/gradient_check.hpp>
#include <linnet/train/layer_checks.hpp>
#include <linnet/train/lion.hpp>
#include <linnet/train/muon.hpp>
#include <linnet/train/run_measures.hpp>
#include <linnet/train/sr_ste.hpp>
#include <linnet/train/trainer.hpp>
#include <linnet/train/weight_average.hpp>
