// SPDX-License-Identifier: MIT
#pragma once
// The kinds of attention (and other mixers) that zoo bench measures, as run time sees them.

#include <cstdint>
#include <linnet/core/finite.hpp>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace zoo {

namespace ln = linnet;

/// Sizes of every measured layer: width of the model, heads.
inline constexpr ln::index kind_width = 64, kind_heads = 4;

/// One layer with weights and buffers for one sequence of a fixed length.
class lone_layer {
 public:
  lone_layer() = default;
  lone_layer(const lone_layer&) = delete;
  lone_layer& operator=(const lone_layer&) = delete;
  virtual ~lone_layer() = default;

  virtual void forward() = 0;
  /// After forward(), of a layer that was planned for training.
  virtual void backward() = 0;
};

/// What a layer is planned for.
struct layer_plan {
  ln::index length = 0;
  int threads = 1;
  bool training = false;
};

/// A small training run, the same for each kind.
struct kind_course {
  std::string_view training, held_out;  ///< text
  long steps = 0;
  int threads = 1;
  std::uint64_t seed = 1;  ///< of the first weights and of the batches
};
/// Sizes of the models and batches of such a run.
inline constexpr ln::index kind_layers = 2, kind_context = 256, kind_batch = 4;

/// What one came to.
struct learning_result {
  double bits = 0;           ///< per byte of held-out text
  double seconds = 0;        ///< of training
  ln::index parameters = 0;  ///< of the whole model
};

/// One kind.
struct kind {
  std::string name;          ///< as in C++, such as "sliding_window<64>"
  bool decoder = false;      ///< measured as a layer of a decoder, else of an encoder
  ln::index longest = 0;     ///< most tokens that it can read; 0 for any
  ln::index parameters = 0;  ///< of the layer
  /// Operations of a forward call that are done: half a square where queries see no later keys.
  double (*flops)(ln::index length) = nullptr;
  ln::index (*bytes)(const layer_plan& p) = nullptr;  ///< of its buffers
  std::unique_ptr<lone_layer> (*make)(const layer_plan& p) = nullptr;
  learning_result (*learn)(const kind_course& c) = nullptr;  ///< as a byte-level decoder, or null
  std::string learner{};  ///< name of the kind of that decoder, which never looks ahead

  /// What the command line calls it: the name without numbers.
  std::string word() const { return name.substr(0, name.find('<')); }
};

// Each of these is compiled in a source file of its own, which keeps compilers small and parallel.
void add_exact_kinds(std::vector<kind>& all);      ///< full, sliding_window, sinks, longformer
void add_sparse_kinds(std::vector<kind>& all);     ///< lsh, routing
void add_low_rank_kinds(std::vector<kind>& all);   ///< linear, linformer, nystrom, fnet
void add_recurrent_kinds(std::vector<kind>& all);  ///< mamba, rwkv4, rwkv7

}  // namespace zoo
