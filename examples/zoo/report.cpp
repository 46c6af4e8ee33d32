#include "report.hpp"
namespace zoo { void write_report(const experiment&, const std::string&) {} }
