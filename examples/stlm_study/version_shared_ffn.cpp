#include "learner_of.hpp"

#if __has_include(<linnet/nn/sharing.hpp>)
namespace study {

std::unique_ptr<learner> make_shared_ffn(bool full, const token_table& tokens) {
  return make_learner<ln::decoder<small, ln::share::ffn>, ln::decoder<table_1, ln::share::ffn>>(
      full, tokens);
}

}  // namespace study
#endif
