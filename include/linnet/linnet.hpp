#pragma once
/// @file
/// All of linnet that needs nothing but the standard library and Eigen. Opt-in headers beside it:
/// linnet/json.hpp (safetensors, Hugging Face) and linnet/xtensor.hpp.

#include <linnet/eval/evaluator.hpp>
#include <linnet/generate/session.hpp>
#include <linnet/io/file.hpp>
#include <linnet/io/llama2c.hpp>
#include <linnet/io/rwkv_file.hpp>
#include <linnet/model/initialize.hpp>
#include <linnet/model/zoo.hpp>
#include <linnet/text/bytes.hpp>
#include <linnet/text/llama2c_tokenizer.hpp>
#include <linnet/train/gradient_check.hpp>
#include <linnet/train/trainer.hpp>
#include <linnet/transform/collapse.hpp>
#include <linnet/transform/quantize.hpp>
