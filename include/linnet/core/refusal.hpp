// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Why a call did nothing: causes as values, for calls that answer with an empty span, NaN or
/// false.

#include <string_view>

#include <linnet/core/platform.hpp>

LINNET_NAMESPACE_BEGIN

/// Why a call of a session, a trainer, an evaluator or a way of decoding did nothing.
enum class refusal : unsigned char {
  none,                      ///< it did what was asked
  not_valid,                 ///< moved from, or never opened
  options,                   ///< an option outside its range
  batch_below_one,           ///< no sequences
  batch_over_limit,          ///< more sequences than limits.batch
  no_tokens,                 ///< sequences of no tokens
  uneven,                    ///< tokens that do not fill [batch, length]
  token_outside_vocabulary,  ///< a token that the model does not have
  label_outside_vocabulary,  ///< a label that is neither a token nor `ignored`
  byte_outside_vocabulary,   ///< of a table of tokens' bytes
  over_target,               ///< more tokens than limits.target
  over_source,               ///< more source tokens than limits.source
  over_chunk,                ///< more tokens in one call than limits.chunk
  over_logits,               ///< more tokens in one call of feed_all() than limits.max_logits
  lengths_missing,           ///< fewer lengths than sequences
  length_below_one,          ///< a sequence of no valid tokens
  length_over_padded,        ///< more valid tokens than were given
  no_blocks,                 ///< a paged cache without room
  no_source,                 ///< a target before its source, a text before its image
  no_sequence,               ///< a number that no sequence has
  no_such_length,            ///< truncate() to more tokens than there are, or fewer than none
  length_gone,               ///< truncate() to a length that the cache has forgotten
  inside_block,              ///< a call or a length that begins inside of a block
  no_layer,                  ///< exit_after() a layer that the model does not have
  other_base,                ///< an adapter of other packed weights
  adapter_late,              ///< an adapter for a sequence that has read tokens
  few_gates,                 ///< switch_gates with room for fewer tokens than the session feeds
  switch_drafts,             ///< drafts of the first layers beside an adapter that routes once
  tree_parents,              ///< tokens whose parents make no tree
  no_tree,                   ///< keep_path() without a tree, or of a token that is not in it
  nothing_chosen,            ///< a sampler that chose nothing
  not_started,               ///< a contrast that has not read this text
  null_tokens,               ///< a batch without tokens
  null_labels,               ///< a batch without labels
  null_source,               ///< a batch without sources
  null_bytes,                ///< a batch without its table of tokens' bytes
  prefix_unknown,            ///< prefixes for a model that takes none
  prefix_outside,            ///< a prefix that is longer than its sequence
  documents_unknown,         ///< documents for a model that cannot keep them apart
  documents_coupled,         ///< documents to train a model that couples the tokens of a row
  documents_with_prefix,     ///< documents and prefixes in one batch
  documents_unordered,       ///< documents that do not follow each other
  documents_unpaired,        ///< other documents of sources than of targets
  documents_written,         ///< documents in a batch whose texts a model writes
  type_outside,              ///< a token type that the model does not have
  null_images,               ///< a batch without images
  image_size,                ///< images of another height or width than the model's
  image_channels,            ///< images of another number of channels
  image_tokens,              ///< a length that is not the number of rows of an image
  images_unknown,            ///< images for a model of texts
  images_of_text,            ///< tokens, types or lengths in a batch of images
  label_on_padding,          ///< a label behind the end of its sequence
  short_logits,              ///< a span that the logits do not fit in
  wrong_losses,              ///< a span of losses of another size
  objective,                 ///< a batch that the objective does not serve
  objective_threads,         ///< more threads than the objective has memory for
  objective_z_loss,          ///< a z-loss beside an objective of log-probabilities
  objective_exits,           ///< early exits beside an objective on the last layer's logits
  attention_recompute,       ///< limits.recompute beside an objective on attention
  attention_layer_dropout,   ///< layer dropout beside an objective on attention
  switch_layer_dropout,      ///< layer dropout beside an adapter that routes tokens once
  attention_virtual,         ///< virtual tokens beside an objective on attention
  not_written,               ///< a batch that the objective did not write last
  other_texts,               ///< a saved state of other texts than those of the batch
  pairs_over_limit,          ///< more pairs of texts than half of limits.batch
  unpaired_texts,            ///< other numbers or lengths of written texts than of real ones
  not_taught,                ///< a batch for which teach() was not called
  taught_sequences,          ///< other sequences in teach() than in the batch
  taught_rows,               ///< other rows in teach() than in the batch
  batch,                     ///< a batch that the model does not take, without a reason
  accumulating,              ///< gradients that no step has used yet are in the way
  no_label,                  ///< nothing to learn from
  not_finite                 ///< a loss or gradient that is no number
};

/// One sentence on a refusal that names the field and the remedy: static text, zero-terminated and
/// never null; empty for `none`.
constexpr std::string_view to_string(refusal why) noexcept {
  switch (why) {
    case refusal::none:
      return "";
    case refusal::not_valid:
      return "the object was moved from, or its constructor failed: use open(), whose error says "
             "why";
    case refusal::options:
      return "an option is outside its range: see docs/options.md";
    case refusal::batch_below_one:
      return "batch is below 1: give at least one sequence";
    case refusal::batch_over_limit:
      return "batch is larger than limits.batch: give fewer sequences, or open with a larger "
             "limits.batch";
    case refusal::no_tokens:
      return "no tokens: give at least one for each sequence";
    case refusal::uneven:
      return "the tokens do not fill [batch, length]: pad all sequences to one length";
    case refusal::token_outside_vocabulary:
      return "a token is outside the vocabulary: give ids from 0 to vocabulary - 1";
    case refusal::label_outside_vocabulary:
      return "a label is outside the vocabulary: give ids from 0 to vocabulary - 1, or `ignored`";
    case refusal::byte_outside_vocabulary:
      return "a token's bytes are outside the vocabulary: give values of bytes, byte_pad or "
             "byte_end";
    case refusal::over_target:
      return "more tokens than limits.target (0: the model's context): give fewer, or open with a "
             "larger limits.target";
    case refusal::over_source:
      return "the source is longer than limits.source: give fewer tokens, or open with a larger "
             "limits.source";
    case refusal::over_chunk:
      return "more tokens in one call than limits.chunk: prefill() takes any number of them, but a "
             "prompt of attention::prefix needs a larger limits.chunk";
    case refusal::over_logits:
      return "more tokens than limits.max_logits: give feed_all() fewer, or open with a larger "
             "limits.max_logits";
    case refusal::lengths_missing:
      return "lengths has fewer entries than the batch has sequences: give one for each";
    case refusal::length_below_one:
      return "an entry of lengths is below 1: give at least 1";
    case refusal::length_over_padded:
      return "an entry of lengths is above the padded length: give the number of valid tokens";
    case refusal::no_blocks:
      return "too few free blocks: truncate a sequence, or open with more limits.kv_blocks";
    case refusal::no_source:
      return "a sequence has no source or image: call encode() with as many first";
    case refusal::no_sequence:
      return "the sequence is outside the batch: give a number from 0 to limits.batch - 1";
    case refusal::no_such_length:
      return "the sequence never had that length: give one from 0 to position()";
    case refusal::length_gone:
      return "the cache has forgotten the sequence at that length: give 0, or take back at most "
             "max_truncation() tokens";
    case refusal::inside_block:
      return "tokens of a block see each other: feed whole blocks, truncate() to the first token "
             "of one, and make limits.chunk a multiple";
    case refusal::no_layer:
      return "the model has no such layer: give 1 to its layers";
    case refusal::other_base:
      return "the adapter was made for other packed weights: adapt() those of the session";
    case refusal::adapter_late:
      return "the sequence has read tokens: truncate() it to 0, or reset(), before another adapter";
    case refusal::few_gates:
      return "the gates are fewer than the tokens of a call: open switch_gates with the session's "
             "limits";
    case refusal::switch_drafts:
      return "the adapter routes tokens in the first layer for all layers, and layers that check "
             "drafts run later: take another adapter, or speculative with a draft model";
    case refusal::tree_parents:
      return "the parents make no tree: give one for each token, -1 or the number of a token "
             "before it, so that there is no circle";
    case refusal::no_tree:
      return "no such token in a tree: call keep_path() right behind feed_tree(), with -1 or the "
             "number of one of its tokens";
    case refusal::nothing_chosen:
      return "the sampler chose no token of the vocabulary: check the logits for NaN or infinity, "
             "and the sampler's options";
    case refusal::not_started:
      return "another text: call reset_and_prefill() before each";
    case refusal::null_tokens:
      return "tokens of the batch is null: give the inputs";
    case refusal::null_labels:
      return "labels of the batch is null: give them, or `ignored`";
    case refusal::null_source:
      return "source or source_lengths of the batch is null: give sources and their lengths";
    case refusal::null_bytes:
      return "bytes of the batch is null: give the table of tokens' bytes";
    case refusal::prefix_unknown:
      return "prefixes of the batch are given: leave them null for models without "
             "attention::prefix";
    case refusal::prefix_outside:
      return "an entry of prefixes is outside its sequence: give 0 to the batch's length";
    case refusal::documents_unknown:
      return "documents of the batch are given, but a layer or head of this model works on whole "
             "rows: give each a row of its own";
    case refusal::documents_coupled:
      return "documents of the batch are given, but ffn::experts trains by the capacity or balance "
             "of whole rows: give each document a row of its own, or set both to 0";
    case refusal::documents_with_prefix:
      return "documents and prefixes of the batch are both given: give each document with a prefix "
             "a row of its own";
    case refusal::documents_unordered:
      return "an entry of documents is neither its own place nor the entry before it: write them "
             "by mark_documents()";
    case refusal::documents_unpaired:
      return "a row has other numbers of documents in its source and its target: give both, one "
             "target for each source; padding of a target belongs to its last document";
    case refusal::documents_written:
      return "documents of the batch are given, but a model writes one text in each row: give each "
             "document a row of its own";
    case refusal::type_outside:
      return "a token type is outside the model's types: give 0 to types - 1, or leave types null";
    case refusal::null_images:
      return "pixels of the batch's images is null: give the images";
    case refusal::image_size:
      return "the images have another height or width than the model's embedding::patches: scale "
             "or crop them";
    case refusal::image_channels:
      return "the images have another number of channels than the model's embedding::patches: "
             "convert them";
    case refusal::image_tokens:
      return "length is not the number of rows that the model makes of an image: give "
             "embedding::patches<...>::tokens, or make the batch by image_batch()";
    case refusal::images_unknown:
      return "images of the batch are given, but this model reads tokens: leave them empty";
    case refusal::images_of_text:
      return "a batch of images has tokens, lengths or types: leave them null";
    case refusal::label_on_padding:
      return "a label stands behind the end of its sequence: give `ignored` there";
    case refusal::short_logits:
      return "the span of logits is too short: give room for [rows, vocabulary], or none";
    case refusal::wrong_losses:
      return "another number of losses: give one for each layer";
    case refusal::objective:
      return "the objective does not accept the batch: check the teacher's limits and the order of "
             "recorded batches";
    case refusal::objective_threads:
      return "limits.threads is above that of the objective: open the objective with as many";
    case refusal::objective_z_loss:
      return "the objective takes log-probabilities from the loss, which a z-loss changes: set "
             "training_options.z_loss to 0";
    case refusal::objective_exits:
      return "the objective is about the last layer's logits alone: set "
             "training_options.early_exits.scale to 0";
    case refusal::attention_recompute:
      return "the objective watches attention in each layer once, and recompute runs layers twice: "
             "open the trainer with limits.recompute false";
    case refusal::attention_layer_dropout:
      return "the objective watches attention in every layer, and layer dropout leaves some out: "
             "set training_options.layer_dropout.rate to 0";
    case refusal::switch_layer_dropout:
      return "the adapter routes tokens in the first layer for all layers, and layer dropout "
             "leaves "
             "some tokens out of others: set training_options.layer_dropout.rate to 0";
    case refusal::attention_virtual:
      return "the objective watches attention between the tokens of a text, and virtual tokens are "
             "none: train lora<> or bottleneck<> instead";
    case refusal::not_written:
      return "the batch is not the one that the objective wrote last: give what its write() "
             "returned";
    case refusal::other_texts:
      return "the state is not of this batch: give what state() said of an objective of the same "
             "limits, and the batch that its write() was given";
    case refusal::pairs_over_limit:
      return "limits.batch is below two for each pair of texts: give fewer, or open with a larger "
             "limits.batch";
    case refusal::unpaired_texts:
      return "the written texts are not as many or not as long as the real ones: give one for "
             "each, and pad both to one length";
    case refusal::not_taught:
      return "the teacher's side of this batch is missing: call teach() before the first step on "
             "each batch";
    case refusal::taught_sequences:
      return "teach() named another number of sequences than the batch has: give the teacher's "
             "answer of each";
    case refusal::taught_rows:
      return "teach() named other rows than the batch has: give one for each, with an id of the "
             "vocabulary first";
    case refusal::batch:
      return "the model does not take the batch: see its accepts()";
    case refusal::accumulating:
      return "gradients are being accumulated: call update() first";
    case refusal::no_label:
      return "no label counts: give at least one that is not `ignored`";
    case refusal::not_finite:
      return "the loss or the gradient is not finite: lower the learning rate, or check the data";
  }
  return "";
}

LINNET_NAMESPACE_END
