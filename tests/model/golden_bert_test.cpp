// SPDX-License-Identifier: MIT
// BERT, DistilBERT, ALBERT and RoBERTa against Hugging Face Transformers in double precision:
// hidden states, logits, gradients and training.

#include "support/golden.hpp"

namespace test::golden_bert_test {

BOOST_AUTO_TEST_SUITE(golden_bert)

BOOST_AUTO_TEST_CASE(masked) { check_golden_encoder<bert>("bert"); }
BOOST_AUTO_TEST_CASE(sequence_classes) { check_golden_encoder<bert_sequence>("bert_sequence"); }
BOOST_AUTO_TEST_CASE(without_types) { check_golden_encoder<distilbert>("distilbert"); }
BOOST_AUTO_TEST_CASE(without_types_by_relu) {
  check_golden_encoder<distilbert_sequence>("distilbert_sequence");
}
BOOST_AUTO_TEST_CASE(shared_and_factorised) { check_golden_encoder<albert>("albert"); }
BOOST_AUTO_TEST_CASE(positions_behind_the_padding) { check_golden_encoder<roberta>("roberta"); }
BOOST_AUTO_TEST_CASE(positions_behind_the_padding_and_classes) {
  check_golden_encoder<roberta_sequence>("roberta_sequence");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::golden_bert_test
