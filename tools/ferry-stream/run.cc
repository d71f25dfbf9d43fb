// SPDX-License-Identifier: BSD-2-Clause
#include "tools/ferry-stream/run.h"

#include <memory>
#include <ostream>

#include "tools/ferry-stream/extract.h"
#include "tools/ferry-stream/options.h"
#include "tools/ferry-stream/print.h"
#include "tools/ferry-stream/reader.h"
#include "util/try.h"

namespace ferry::stream_tool {

namespace {

constexpr int kGood = 0;
constexpr int kBad = 1;
constexpr int kWrongUse = 2;

std::unique_ptr<Printer> make_printer(const Options& options, std::ostream& out) {
    using Elements = JsonPrinter::Elements;
    const bool only_check = options.action == Action::Check;
    if (options.format == Format::Json) {
        return std::make_unique<JsonPrinter>(out, only_check ? Elements::Hidden : Elements::Shown);
    }
    if (only_check) return std::make_unique<CheckPrinter>(out);
    return std::make_unique<TextPrinter>(out);
}

Result<int> print(const Options& options, const Input& input, Console& console) {
    const auto printer = make_printer(options, console.out);
    Findings findings;
    StreamReader reader(input, findings, *printer, options.detail);
    printer->begin(input);
    MIG_CHECK(reader.run());
    printer->end(reader, findings);
    return findings.problems() == 0 ? kGood : kBad;
}

Result<int> copy_out(const Options& options, const Input& input, Console& console) {
    const Extract what =
        options.action == Action::ExtractSection ? Extract::Section : Extract::Image;
    Findings findings;
    const auto extracted = extract(input, findings, what, options.wanted, options.output);
    print_findings(console.err, input.name() + ": ", findings);
    if (!extracted && extracted.error().kind() == ErrorKind::InvalidArgument) {
        console.err << "ferry-stream: " << extracted.error().message() << "\n";
        return kBad;
    }
    if (!extracted) return extracted.error();
    console.out << fmt::format("{}: {} bytes in {} pieces\n", options.output, extracted->bytes,
                               extracted->pieces);
    return findings.problems() == 0 ? kGood : kBad;
}

Result<int> act(const Options& options, Console& console) {
    MIG_TRY(const Input input, Input::open(options.input, options.offset, kMaxSpoolBytes));
    const bool prints = options.action == Action::Print || options.action == Action::Check;
    MIG_TRY(const int status,
            prints ? print(options, input, console) : copy_out(options, input, console));
    console.out.flush();
    if (!console.out) return Error(ErrorKind::Syscall, "writing the output failed");
    return status;
}

}  // namespace

int run(std::span<const std::string> arguments, Console console) {
    const auto options = parse_options(arguments);
    if (!options) {
        console.err << "ferry-stream: " << options.error().message()
                    << "\nTry 'ferry-stream --help'.\n";
        return kWrongUse;
    }
    if (options->action == Action::Help) {
        console.out << help_text();
        return kGood;
    }
    if (options->action == Action::Version) {
        console.out << "ferry-stream " FERRY_VERSION "\n";
        return kGood;
    }
    const auto status = act(*options, console);
    if (!status) {
        console.err << "ferry-stream: " << status.error().message() << "\n";
        return kWrongUse;
    }
    return *status;
}

}  // namespace ferry::stream_tool
