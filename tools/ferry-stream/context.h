// SPDX-License-Identifier: BSD-2-Clause
// What the readers of the different bodies share.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "migration/savevm.h"
#include "tools/ferry-stream/findings.h"
#include "tools/ferry-stream/input.h"

namespace ferry::stream_tool {

using migration::SectionKind;

enum class Detail : uint8_t {
    Summary,  // pages are counted
    Pages     // and each is listed
};

// Takes what is read, in stream order. An Error ends the reading.
class Observer {
 public:
    virtual ~Observer() = default;
    // An element is complete, with all below it.
    virtual Result<> element(const Node& node) = 0;
    virtual Result<> body(const std::string& idstr, uint32_t instance, uint64_t offset,
                          uint64_t size) = 0;
    // Of the VFIO device with this section.
    virtual Result<> image(const std::string& idstr, uint32_t instance, uint64_t offset,
                           uint64_t size) = 0;
    virtual Result<> image_discarded(const std::string& idstr, uint32_t instance) = 0;
};

// Only looks.
class IdleObserver : public Observer {
 public:
    Result<> element(const Node&) override { return {}; }
    Result<> body(const std::string&, uint32_t, uint64_t, uint64_t) override { return {}; }
    Result<> image(const std::string&, uint32_t, uint64_t, uint64_t) override { return {}; }
    Result<> image_discarded(const std::string&, uint32_t) override { return {}; }
};

// The section whose body is read.
struct BodyOf {
    uint32_t id = 0;
    const std::string& idstr;
    uint32_t instance = 0;
    SectionKind kind = SectionKind::Full;
};

class Context {
 public:
    Context(const Input& input, Findings& all_findings, Observer& who, Detail how)
        : in(input), findings(all_findings), observer(who), detail(how) {}

    // Within the limit of nodes below one element.
    Node* add(Node& parent, Node child);
    void begin_element() { nodes_ = omitted_ = 0; }
    uint64_t omitted() const { return omitted_; }

    // Whether the footer of section `id` is next: 7e and the id.
    Result<bool> at_footer(uint32_t id);

    Cursor in;
    Findings& findings;
    Observer& observer;
    const Detail detail;

    // What the stream said of itself.
    uint64_t page_size = kDefaultPageSize;
    enum class Layout : uint8_t { Plain, IgnoreShared, MappedRam } ram_layout = Layout::Plain;
    enum class Hello : uint8_t { None, Said } hello = Hello::None;
    uint16_t hello_features = 0;
    bool hello_offers(uint16_t feature) const { return (hello_features & feature) != 0; }
    enum class Postcopy : uint8_t { No, Advised, Begun } postcopy = Postcopy::No;

 private:
    size_t nodes_ = 0;
    uint64_t omitted_ = 0;
};

}  // namespace ferry::stream_tool
