def page(found): return ""
def text(work):
    lines = [f"{work['title']}, {work['threads']} thread(s), ms per {work['unit']}"]
    for r in sorted(work["sides"], key=lambda r: r["ms"]):
        lines.append(f"  {r['peer'] + ' ' + r['type']:24}{r['ms']:10.4g}  min {r['ms_min']:<9.4g} CPU {r['cpu_ms']:<9.4g} {r['runs']:5} runs  {r.get('agreement', '')}")
    return "\n".join(lines)
def goals_text(found): return "\n".join(str(g) for g in found["goals"])
