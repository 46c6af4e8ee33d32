// SPDX-License-Identifier: MIT
#pragma once
// The commands of the program and their options, as the command line fills them in.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace zoo {

/// How the weights of a model are kept, and what inputs of products are rounded to.
struct rounding {
  std::string storage = "f32";
  std::string compute = "f32";

  bool none() const { return storage == "f32" && compute == "f32"; }
};

struct count_options {
  std::string preset;
  std::string ffn = "standard";
  std::optional<double> expansion;  ///< of 2w and 3w
  long source = 128;
  long target = 128;
  bool json = false;
};

struct bench_options {
  std::string preset;
  std::string ffn = "standard";
  std::string storage = "f32";
  std::string activation = "f32";
  std::string weights;  ///< a file; without, random ones
  std::string work = "all";
  long batch = 1;
  long source = 128;  ///< source, or prompt of a decoder
  long target = 64;   ///< tokens to decode, and labels of a training step (T5)
  int threads = 1;
  double seconds = 2;  ///< of timing each work
  bool profile = false;
  bool json = false;
  std::string attention;  ///< a kind of attention or "all", measured instead of a preset
  std::string lengths = "128:16384";  ///< of sequences: from, to
  std::string train;                  ///< text that decoders of each kind learn from, or empty
  long steps = 1000;                  ///< of that
  std::string html;                   ///< page with plots, or empty
};

struct search_options {
  std::string text;                ///< file that models learn from
  std::string model = "decoder";   ///< that the axes change
  std::vector<std::string> axes;   ///< such as "layers=2,4"
  long parameters = 0, bytes = 0;  ///< most of a model; 0: any
  long flops = 0;                  ///< most of a call; 0: any
  long least_parameters = 0;
  long steps = 100;      ///< of the first round
  long keep_one_of = 2;  ///< models, of which one goes on
  long finalists = 1;
  std::uint64_t seed = 1;
  int threads = 1;
  std::string state;  ///< file that keeps what is known, or empty
  std::string html;   ///< page with the front, or empty
  bool json = false;
};

struct fetch_options {
  std::string model;
};

struct generate_options {
  std::string model;
  std::string weights;
  rounding how;
  std::string tokenizer;
  std::string prompt;
  std::string prefix, suffix;  ///< texts between which a middle is written
  bool fills = false;          ///< whether one of them is given
  long tokens = 0;             ///< of the text, prompt included; 0 means as many as fit
  double temperature = 1;
  double top_p = 1;
  double min_p = 0;
  long top_k = 0;
  double repetition_penalty = 1;
  long beams = 1;      ///< more than one: beam search instead of sampling
  double alpha = 0.6;  ///< of its length normalisation
  std::vector<std::string> stop;
  std::uint64_t seed = 0;
  int threads = 1;
};

struct chat_options {
  std::string model = "smollm2-135m";
  std::string weights;
  rounding how;
  std::string tokenizer;
  std::string system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face";
  long tokens = 512;    ///< most of an answer
  long context = 2048;  ///< most of a conversation; older messages are left out
  double temperature = 0.2;
  double top_p = 0.9;
  std::uint64_t seed = 0;
  int threads = 1;
  bool figures = false;
};

struct embed_options {
  std::string model = "minilm";
  std::string weights;
  std::string tokenizer;
  std::vector<std::string> texts;  ///< none: the lines of standard input
  long batch = 32;
  int threads = 1;
  bool json = false;
};

struct logits_options {
  std::string model;
  std::string weights;
  rounding how;
  std::string tokens, source, target;  ///< comma-separated ids
  int threads = 1;
  bool json = false;
};

struct eval_options {
  std::string model;
  std::string weights;
  rounding how;
  std::string tokenizer;
  std::vector<std::string> tasks;  ///< names of tests; none: all that the folder has
  std::string data;                ///< folder of the tests' folders
  std::vector<std::string> texts;  ///< files of text beside them
  long limit = 0;                  ///< most items of each; 0: all
  long shots = 0;                  ///< solved examples before each question
  long context = 0;                ///< most tokens that the model reads at a time; 0: as it can
  long batch = 8;                  ///< sequences that are computed together
  int threads = 1;
  std::string out;  ///< results as JSON
};

struct compress_options {
  std::string model;
  std::string weights;
  rounding how{.storage = "int4-g64", .compute = "f32"};
  std::string tokenizer;
  std::string method = "gptq";
  std::string sparsity;  ///< of methods that prune: percent, or n:m; empty: the storage's, or 50
  std::string shape;     ///< of narrow, such as "layers=24,d_ff=1024"
  std::string importance = "activation";  ///< of narrow
  std::string activation;                 ///< that relufy gives; empty: relu
  long rank = 0;                          ///< of predictors; 0: 16
  std::string calibrate;                  ///< text that the model runs on first
  std::string evaluate;                   ///< text that it is judged by, or none
  long samples = 0;         ///< most windows of calibration; 0: 128, or 512 lines of an encoder's
  long windows = 64;        ///< most windows of evaluation
  long length = 0;          ///< tokens of a window; 0: 512, or the model's context
  double minutes = 15;      ///< after which calibration takes what it has, and learning ends
  long steps = 100;         ///< of a method that learns, at most
  double rate = 5e-4;       ///< the highest of distil
  bool sequential = false;  ///< each block is calibrated on what rounded ones give
  std::string statistics;   ///< file of what calibration gathered, or none
  std::string reference;    ///< file of the figures before, or none
  std::uint64_t seed = 0;   ///< of the windows of calibration
  int threads = 1;
  std::string out;
  bool json = false;
};

/// What `train`, `sweep` and `quickstart` share.
struct course_options {
  std::string text;
  std::string model = "byte-decoder";
  long steps = 0;      ///< 0: as many as fit in `minutes`
  double minutes = 1;  ///< of training
  int threads = 1;
  std::uint64_t seed = 1;
  double rate = 2e-3;  ///< highest learning rate
  long batch = 4;
};

struct train_options : course_options {
  std::string ffn = "standard";
  std::string out;
  bool resume = false;     ///< from the checkpoint of a run that was ended
  double save_every = 60;  ///< seconds from one checkpoint to the next

  // Of any model and tokenizer, to a folder; `texts` is empty for the byte-level ones of `text`.
  std::vector<std::string> texts;  ///< files and folders
  std::string mix;                 ///< such as "wiki.txt=3,code.txt=1"
  std::string tokenizer = "bytes";
  std::string objective;  ///< what is learned of the texts; empty: what is usual for the model
  long length = 0;        ///< tokens of a window or a source; 0: as the model allows, 256 at most
  long accumulate = 1;    ///< batches of a step
  std::string schedule = "cosine";
  double warm_up = 0.05;   ///< share of the steps
  double last_rate = 0.1;  ///< share of the highest rate that a cosine ends with
  double decay = 0.1;
  double clip = 1;
  double dropout = 0;
  std::string optimizer = "adamw";
  std::string compute = "f32";

  // Of finetune, and of the teacher of distil.
  std::string weights;     ///< that finetune begins with
  std::string teacher;     ///< model; empty: what its weights know
  bool taught = false;     ///< by the model of `weights`
  double alpha = 0.1;      ///< weight of the text's own tokens in the loss
  double temperature = 3;  ///< that both distributions are softened by
  std::string divergence = "cross_entropy";
  double beta = 0.5;            ///< of jsd
  std::string match;            ///< what more is learned: hidden, cosine, ted, relations or minilm
  double match_weight = 1;      ///< of that in the loss
  long filter_steps = 0;        ///< of ted's first stage; 0: as many as `steps`
  long lora = 0;                ///< rank of an adapter that is trained instead of the weights, or 0
  long qlora = 0;               ///< such a rank; the weights are frozen in NF4
  long prompt = 0, prefix = 0;  ///< virtual tokens that are trained instead, or 0
  long bottleneck = 0;          ///< width of maps behind branches that are trained instead, or 0
  double lora_alpha = 16, lora_dropout = 0;
  std::string lora_target = "all";  ///< or ends of matrices' names, such as "q,v"

  long parts = 0;  ///< of a batch that the processes of mpirun share; 0: as they need
};

struct report_options : course_options {
  std::string report;  ///< HTML file, or empty
};

void list_presets();
void count(const count_options& o);
void bench(const bench_options& o);
void bench_attention(const bench_options& o);
void search(const search_options& o);
void fetch(const fetch_options& o);
void generate(const generate_options& o);
void chat(const chat_options& o);
void embed(const embed_options& o);
void logits(const logits_options& o);
void evaluate(const eval_options& o);
void compress(const compress_options& o);
void train(const train_options& o);
void train_folder(const train_options& o);
void finetune(const train_options& o);
void distil(const train_options& o);
void sweep(const report_options& o);
void quickstart(const report_options& o);

}  // namespace zoo
