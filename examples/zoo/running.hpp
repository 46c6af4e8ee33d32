// SPDX-License-Identifier: MIT
#pragma once
// A model with weights, ready to run, whatever its type: run time's handle on a compile-time model.

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <linnet/generate/beam_search.hpp>

#include "commands.hpp"
#include "support/basics.hpp"

namespace zoo {

namespace ln = linnet;

/// One session of one model, for sequences up to the limits it was opened with.
class running {
 public:
  running() = default;
  running(const running&) = delete;
  running& operator=(const running&) = delete;
  virtual ~running() = default;

  /// Whether the model is an encoder-decoder.
  virtual bool encodes() const = 0;
  /// Number of token ids.
  virtual ln::index vocabulary() const = 0;
  /// Encodes a source and starts a new target; encoder-decoders only. A failure if it does not fit.
  virtual void encode(std::span<const ln::token> source) = 0;
  /// As members of ln::session of the same names; with them a model is what ln::session_scorer and
  /// ln::generate_greedy run.
  virtual const ln::limits& planned() const = 0;
  virtual ln::index capacity() const = 0;
  virtual ln::index chunk() const = 0;
  virtual void reset() = 0;
  virtual std::span<float> prefill(std::span<const ln::token> tokens) = 0;
  std::span<float> feed(std::span<const ln::token> tokens) { return feed(tokens, 1, {}); }
  virtual std::span<float> feed(std::span<const ln::token> tokens, ln::index batch,
                                std::span<const ln::index> lengths) = 0;
  virtual std::span<float> feed_all(std::span<const ln::token> tokens, ln::index batch,
                                    std::span<const ln::index> lengths) = 0;
  virtual bool fork(ln::index from, ln::index to) = 0;
  virtual std::string_view last_refusal() const = 0;
  /// One more session of this model with the same limits.
  virtual std::unique_ptr<running> another() const = 0;
  /// The best text after a prompt, or for a source, that a beam search finds. A failure if there is
  /// none.
  virtual std::vector<ln::token> search(std::span<const ln::token> tokens,
                                        const ln::beam_options& how,
                                        const ln::generation_options& g) = 0;
};

/// Ends the program with what the model says about the last call.
[[noreturn]] inline void give_up(const running& model) {
  throw support::failure("the model gives nothing: " + std::string(model.last_refusal()));
}

/// Continues a prompt (of an encoder-decoder: answers a source) by up to `most` tokens, which are
/// handed to `emit` as they are chosen; it returns false to end. Returns how many were chosen.
ln::index generate(running& model, std::span<const ln::token> prompt, ln::index most,
                   const ln::sampling_options& how, const std::function<bool(ln::token)>& emit);

/// A preset that is compiled to run.
struct runnable_preset {
  std::string name;
  bool encodes;
  ln::index vocabulary;
  ln::index context;  ///< longest sequence, or 0 for no limit
  /// Loads weights (a GGUF file, a llama2.c checkpoint, a file of rwkv.cpp, a safetensors file or a
  /// Hugging Face directory).
  std::function<std::unique_ptr<running>(const std::string& weights, const ln::limits& l)> open;
  /// Rounds them, too; empty for a preset whose other storages are compiled when asked for.
  std::function<std::unique_ptr<running>(const std::string& weights, const ln::limits& l,
                                         const rounding& how)>
      open_rounded = nullptr;
};

std::vector<runnable_preset> runnable_t5_presets();
std::vector<runnable_preset> runnable_decoder_presets();

/// Loads the weights of a preset and rounds them as asked. Files of zoo compress say how they are
/// stored. What is not built in is compiled.
std::unique_ptr<running> open_runnable(const runnable_preset& preset, const std::string& weights,
                                       const ln::limits& l, const rounding& how);

/// The weights of a model, rounded to nearest by a compressor, see compressor.hpp.
std::unique_ptr<running> open_compiled(const std::string& model, const std::string& weights,
                                       const ln::limits& l, const rounding& how);

/// The weights of smollm2-135m, rounded.
std::unique_ptr<running> open_smollm2_rounded(const std::string& weights, const ln::limits& l,
                                              const rounding& how);

/// Whether weights say which model they are of: a folder of zoo train --text, a file of zoo
/// compress.
bool knows_its_model(const std::string& weights);

/// The runnable preset of that name, or a shape; refuses others with the list of names. Without a
/// name, the model that the weights say, compiled if it has to be.
runnable_preset find_runnable(const std::string& given, const std::string& weights);

}  // namespace zoo
